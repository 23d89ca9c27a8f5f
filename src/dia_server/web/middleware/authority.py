"""Parses `host:port` as written in the Host and Origin headers."""

import re
from dataclasses import dataclass

AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[\w.-]+))(?::(?P<port>\d*))?", re.ASCII)
DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Authority:
    host: str
    """Host name or IP address in lower case, without IPv6 brackets or a trailing dot."""
    port: str
    """Port as written; empty if absent."""

    def has_port_of(self, other: "Authority", scheme: str) -> bool:
        """Return whether the ports are equal; an absent port counts as the default port of `scheme`."""
        default = DEFAULT_PORTS[scheme]
        return (self.port or default) == (other.port or default)


def parse(text: str) -> Authority | None:
    """Parse `text`; return None if it is neither `host` nor `host:port`."""
    if not (match := AUTHORITY.fullmatch(text)):
        return None
    host = match["ipv6"] or match["name"].removesuffix(".")
    return Authority(host.lower(), match["port"] or "")
