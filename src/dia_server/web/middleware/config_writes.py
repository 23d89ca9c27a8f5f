"""Read-only mode of /config (DIA_CONFIG_WRITABLE=false)."""

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from dia_server.errors import Forbidden
from dia_server.web.middleware.cross_origin import SAFE_METHODS


class ReadOnlyConfig(ASGIMiddleware):
    """Answers 403 to requests to /config and below, except GET, HEAD and OPTIONS."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        below_config = scope["path_template"].split("/")[1] == "config"
        if scope["type"] == ScopeType.HTTP and below_config and scope["method"] not in SAFE_METHODS:
            raise Forbidden("The configuration is read-only: DIA_CONFIG_WRITABLE=false")
        await next_app(scope, receive, send)
