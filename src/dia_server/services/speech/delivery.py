"""How the audio of a request is delivered."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How a request's audio reaches its client, and how the request shares the engine with others."""

    client: str = ""
    """Identity of the client, for the fair sharing of slots between clients."""
    live: bool = False
    """Whether the client gets the audio while it is generated."""
    background: bool = False
    """Whether other requests go first in the engine's queue."""
