"""Names by which browsers may reach the server: a guard against DNS rebinding.

A page's script may call the address that the page came from. An attacker who serves a page from a name of
his own, and then has that name lead to the visitor's machine, could so use a server there. The name stands in
the header Host of such requests, so names that anyone can buy are refused.
"""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from dia_server.web.middleware import authority

LOCAL_SUFFIXES = (
    ".localhost",
    ".local",
    ".internal",
    ".lan",
    ".home",
    ".home.arpa",
    ".localdomain",
    ".svc",
)
"""Names under these are given out by the local network alone."""
PRIVATE_NETWORK_SUFFIXES = (".ts.net",)
"""Tailscale's names lead into a private network, but some of their pages are public."""


class Hosts:
    """Knows the hosts that are this server or in its network; `allowed` adds names, `*` all."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = {name.lower() for name in allowed}
        self._lookup: asyncio.Task[set[str]] | None = None

    async def accepts(self, host: str) -> bool:
        """Return whether a request with this Host is answered; an empty one is a missing one."""
        if not host or "*" in self._allowed:
            return True
        if (parsed := authority.parse(host)) is None:
            return False
        name = parsed.host
        return address(name) is not None or name.endswith(PRIVATE_NETWORK_SUFFIXES) or await self.knows(name)

    async def knows(self, name: str) -> bool:
        """Return whether only the operator, this machine or its network can have given out `name`."""
        if "." not in name or name.endswith(LOCAL_SUFFIXES) or name in self._allowed:
            return True
        return name in await self._names_of_this_machine()

    async def _names_of_this_machine(self) -> set[str]:
        """Looked up once, when first needed: a resolver without a network takes seconds."""
        if self._lookup is None:
            self._lookup = asyncio.create_task(asyncio.to_thread(names_of_this_machine))
        return await asyncio.shield(self._lookup)


def names_of_this_machine() -> set[str]:
    return {socket.gethostname().lower(), socket.getfqdn().lower()}


def address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that `host` is, None where it is a name."""
    try:
        parsed = ip_address(host)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
