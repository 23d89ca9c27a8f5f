"""Routes that foreign pages may not request even with GET, because a request costs a generation.

`CrossOrigin` lets every page send GET requests: it may not read the answers. An <audio> or <img> element of a
foreign page would still make the server generate.
"""

from urllib.parse import urlsplit

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from dia_server.errors import Forbidden
from dia_server.web.middleware.origins import Origins
from dia_server.web.route_options import options_of

BROWSER = "Mozilla/"
"""Prefix of the User-Agent of every browser; pages cannot change it for elements."""


class ForeignPages(ASGIMiddleware):
    """Answers 403 to pages of disallowed origins on routes with the option `generates_on_get`."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, origins: Origins) -> None:
        self._origins = origins

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        generates = options_of(scope["route_handler"]).get("generates_on_get", False)
        if generates and not await self._may_call(Headers.from_scope(scope)):
            raise Forbidden(
                "A page of another site may not make this server generate speech; add its origin to "
                "DIA_CORS_ORIGINS, and request the preview with fetch()"
            )
        await next_app(scope, receive, send)

    async def _may_call(self, headers: Headers) -> bool:
        """Return whether the request is from an allowed page or from a program.

        Elements send no Origin. To hosts without TLS other than localhost, browsers send no Sec-Fetch-Site
        either. Then Referer decides, which a page can only leave out.
        """
        if self._origins.all:
            return True
        host = headers.get("host", "")
        if (origin := headers.get("origin")) is not None:
            return await self._origins.allow(origin, host)
        if (site := headers.get("sec-fetch-site")) is not None:
            return site in {"none", "same-origin"}
        if referrer := headers.get("referer"):
            return await self._origins.allow(_origin(referrer), host)
        return not headers.get("user-agent", "").startswith(BROWSER)


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "null"
    return f"{parts.scheme}://{parts.netloc}"
