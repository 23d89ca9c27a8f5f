"""Peers: the other servers on the same PostgreSQL database."""

from dia_server.services.peers.heartbeat import Heartbeat
from dia_server.services.peers.leadership import Leadership
from dia_server.services.peers.membership import Membership
from dia_server.services.peers.reloading import Reloading

__all__ = ["Heartbeat", "Leadership", "Membership", "Reloading"]
