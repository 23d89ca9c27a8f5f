"""Answers OPTIONS requests with the methods of a route."""

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.response.base import ASGIResponse
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Scope, Send

from dia_server.web.errors import allow


class OptionsMiddleware(ASGIMiddleware):
    """Answers with all methods of the path in `Allow`; Litestar lists only those of its first handler."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "OPTIONS":
            await next_app(scope, receive, send)
            return
        methods = next(
            route.methods
            for route in scope["litestar_app"].routes
            if isinstance(route, HTTPRoute) and route.path_format == scope["path_template"]
        )
        answer = ASGIResponse(status_code=204, headers={"Allow": allow(methods)})
        await answer(scope, receive, send)
