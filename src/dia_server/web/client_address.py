"""Whose request it is, with proxies in between."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from litestar.datastructures import Headers
from litestar.types import Scope

Network = IPv4Network | IPv6Network


class ClientAddress:
    """Tells a request's client address; `X-Forwarded-For` counts only as far as trusted proxies wrote it."""

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted: list[Network] = [ip_network(proxy, strict=False) for proxy in trusted_proxies]

    def __call__(self, scope: Scope) -> str:
        client = scope.get("client")
        address = client[0] if client else "unknown"
        forwarded = Headers.from_scope(scope).get("x-forwarded-for", "").split(",")
        while forwarded and self._trusts(address) and (last := forwarded.pop().strip()):
            address = last
        return address

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)
