"""Finds the client address of a request, also behind trusted proxies."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from litestar.datastructures import Headers
from litestar.types import Scope

Network = IPv4Network | IPv6Network

WITH_PORT = re.compile(r"\[(?P<ipv6>.*)\](?::\d+)?|(?P<ipv4>[\d.]+):\d+")
"""Matches forms that some proxies write: `[2001:db8::1]`, `[2001:db8::1]:4711`, `192.0.2.1:4711`."""
CLIENT_PREFIX = 64
"""Prefix length that identifies an IPv6 client: a subscriber usually gets a whole /64."""


class ClientAddress:
    """Returns the client address of a request; trusts `X-Forwarded-For` only from trusted proxies.

    An IPv6 address is returned as its /64 network, such as `2001:db8::/64`.
    """

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted: list[Network] = [ip_network(proxy, strict=False) for proxy in trusted_proxies]

    def __call__(self, scope: Scope) -> str:
        client = scope.get("client")
        address = client[0] if client else "unknown"
        # a proxy may extend the existing header or add a second one
        forwarded = ",".join(Headers.from_scope(scope).getall("x-forwarded-for", [])).split(",")
        while forwarded and self._trusts(address) and (last := forwarded.pop().strip()):
            address = last
        parsed = _parse(address)
        if isinstance(parsed, IPv6Address):
            return str(IPv6Network((int(parsed), CLIENT_PREFIX), strict=False))
        return str(parsed or address)

    def _trusts(self, address: str) -> bool:
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address and ignore its port and zone; return IPv4-mapped IPv6 as IPv4, None if invalid."""
    if match := WITH_PORT.fullmatch(address):
        address = match["ipv6"] or match["ipv4"]
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
