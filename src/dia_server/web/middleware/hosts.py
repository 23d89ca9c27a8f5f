"""Host names under which browsers may reach the server: protection against DNS rebinding.

In DNS rebinding, a page is served from the attacker's domain, which is then resolved to an address in the
visitor's network, so that its script can call servers there as same-origin. The Host header of such requests
still has the attacker's domain, so names that anyone can register are refused unless they are allowed
explicitly.
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
"""Suffixes of names that a local network assigns and that cannot be registered in public DNS."""
PRIVATE_NETWORK_SUFFIXES = (".ts.net",)
"""Suffixes accepted in Host but not in Origin: Tailscale names are private, but may serve public pages."""


class Hosts:
    """Recognizes names of this server and its network; `allowed` adds names, and `*` in it accepts all."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = {name.lower() for name in allowed}
        self._lookup: asyncio.Task[set[str]] | None = None

    async def accepts(self, host: str) -> bool:
        """Return whether this Host header is accepted; IP addresses and a missing header ("") always are."""
        if not host or "*" in self._allowed:
            return True
        if (parsed := authority.parse(host)) is None:
            return False
        name = parsed.host
        return address(name) is not None or name.endswith(PRIVATE_NETWORK_SUFFIXES) or await self.knows(name)

    async def knows(self, name: str) -> bool:
        """Return whether `name` is allowed, local or this machine's, hence no attacker's domain."""
        if "." not in name or name.endswith(LOCAL_SUFFIXES) or name in self._allowed:
            return True
        return name in await self._names_of_this_machine()

    async def _names_of_this_machine(self) -> set[str]:
        """Return this machine's host names.

        They are resolved once, on a thread, because resolution takes seconds without a network.
        """
        if self._lookup is None:
            self._lookup = asyncio.create_task(asyncio.to_thread(names_of_this_machine))
        return await asyncio.shield(self._lookup)


def names_of_this_machine() -> set[str]:
    return {socket.gethostname().lower(), socket.getfqdn().lower()}


def address(host: str) -> IPv4Address | IPv6Address | None:
    """Return `host` as an IP address (IPv4-mapped IPv6 as IPv4), None if it is a name."""
    try:
        parsed = ip_address(host)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
