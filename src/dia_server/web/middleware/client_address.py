"""Whose request it is, with proxies in between."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from litestar.datastructures import Headers
from litestar.types import Scope

Network = IPv4Network | IPv6Network

WITH_PORT = re.compile(r"\[(?P<ipv6>.*)\](?::\d+)?|(?P<ipv4>[\d.]+):\d+")
"""Addresses as some proxies write them: `[2001:db8::1]`, `[2001:db8::1]:4711`, `192.0.2.1:4711`."""
CLIENT_PREFIX = 64
"""Bits of an IPv6 address that name a client: one subscriber has all addresses that share them."""


class ClientAddress:
    """Tells a request's client address; `X-Forwarded-For` counts only as far as trusted proxies wrote it.

    IPv6 clients are told as networks: `2001:db8::/64`.
    """

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted: list[Network] = [ip_network(proxy, strict=False) for proxy in trusted_proxies]

    def __call__(self, scope: Scope) -> str:
        client = scope.get("client")
        address = client[0] if client else "unknown"
        # each proxy may append to the line that there is, or add one
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
    """Return the address without port or zone, IPv4 where it is mapped to IPv6; None for anything else."""
    if match := WITH_PORT.fullmatch(address):
        address = match["ipv6"] or match["ipv4"]
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
