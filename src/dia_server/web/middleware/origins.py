"""Pages that may use the server from a browser, by their origin."""

import re
from collections.abc import Iterable

from dia_server.web.middleware import authority
from dia_server.web.middleware.hosts import Hosts, address

ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>.*)")
WEB = {"http", "https"}


class Origins:
    """Allows `listed` origins (`*`: all). Where none are listed, pages of `hosts` and of apps.

    The server's own origin is always allowed.
    """

    def __init__(self, listed: Iterable[str], hosts: Hosts) -> None:
        self._listed = frozenset(listed)
        self._hosts = hosts
        self.all = "*" in self._listed

    async def allow(self, origin: str, host: str) -> bool:
        """Return whether a page of `origin` may use the server that the browser calls `host`."""
        if self.all or origin in self._listed:
            return True
        if not (match := ORIGIN.fullmatch(origin)):  # `null`: a sandbox, a file, a redirection
            return False
        if match["scheme"] not in WEB:  # an app, or an extension that was allowed to go anywhere
            return not self._listed
        page = authority.parse(match["authority"])
        if page is None:
            return False
        # a proxy may have taken TLS off, so the scheme that the server sees is not compared
        own = authority.parse(host)
        if own is not None and own.host == page.host and own.has_port_of(page, match["scheme"]):
            return True
        return not self._listed and await self._is_local(page.host)

    async def _is_local(self, host: str) -> bool:
        if (ip := address(host)) is not None:
            return not ip.is_global
        return await self._hosts.knows(host)
