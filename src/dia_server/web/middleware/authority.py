"""Hosts and ports, as the headers Host and Origin write them."""

import re
from dataclasses import dataclass

AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[\w.-]+))(?::(?P<port>\d*))?", re.ASCII)
DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Authority:
    host: str
    """In lower case, without brackets and without the dot that ends a full name."""
    port: str
    """Empty where none is written."""

    def has_port_of(self, other: "Authority", scheme: str) -> bool:
        """Return whether both mean the same port; one that is not written is that of `scheme`."""
        default = DEFAULT_PORTS[scheme]
        return (self.port or default) == (other.port or default)


def parse(text: str) -> Authority | None:
    """Return what `text` says, None where it is not `host` or `host:port`."""
    if not (match := AUTHORITY.fullmatch(text)):
        return None
    host = match["ipv6"] or match["name"].removesuffix(".")
    return Authority(host.lower(), match["port"] or "")
