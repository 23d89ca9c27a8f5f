"""Origins whose pages may use the server."""

import re
from collections.abc import Iterable

from dia_server.web.middleware import authority
from dia_server.web.middleware.hosts import Hosts, address

ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>.*)")
WEB = {"http", "https"}


class Origins:
    """Allows the origins in `listed` (`*`: all), and always the server's own origin.

    If `listed` is empty, local origins are allowed, and origins of apps and browser extensions, whose scheme
    is neither http nor https.
    """

    def __init__(self, listed: Iterable[str], hosts: Hosts) -> None:
        self._listed = frozenset(listed)
        self._hosts = hosts
        self.all = "*" in self._listed

    async def allow(self, origin: str, host: str) -> bool:
        """Return whether pages of `origin` may use the server; `host` is the request's Host header."""
        if self.all or origin in self._listed:
            return True
        # no match: "null", from a sandboxed frame, a local file or a redirect
        if not (match := ORIGIN.fullmatch(origin)):
            return False
        if match["scheme"] not in WEB:  # an app, or a browser extension with access
            return not self._listed
        page = authority.parse(match["authority"])
        if page is None:
            return False
        # a proxy may have terminated TLS, so do not compare the scheme
        own = authority.parse(host)
        if own is not None and own.host == page.host and own.has_port_of(page, match["scheme"]):
            return True
        return not self._listed and await self._is_local(page.host)

    async def _is_local(self, host: str) -> bool:
        if (ip := address(host)) is not None:
            return not ip.is_global
        return await self._hosts.knows(host)
