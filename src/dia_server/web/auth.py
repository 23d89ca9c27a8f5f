"""API keys."""

import hmac
from urllib.parse import parse_qs

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from dia_server.errors import Unauthorized


class ApiKeys(ASGIMiddleware):
    """Asks for `Authorization: Bearer <key>`, except on handlers with `opt={"public": True}`."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = [key.encode() for key in keys]

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        if self._keys and not scope["route_handler"].opt.get("public", False):
            self._check(authorization(scope))
        await next_app(scope, receive, send)

    def _check(self, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        given = token.strip().encode() if scheme.lower() == "bearer" else b""
        # every key is compared, each in constant time, so that the answer's time tells nothing
        if sum(hmac.compare_digest(given, key) for key in self._keys) == 0:
            raise Unauthorized("An API key is required: Authorization: Bearer <key>")


def authorization(scope: Scope) -> str:
    """What the client shows; browsers can't send headers with a WebSocket, so there a parameter will do."""
    header = Headers.from_scope(scope).get("authorization", "")
    if header or scope["type"] != ScopeType.WEBSOCKET:
        return header
    (key,) = parse_qs(scope["query_string"].decode("latin-1")).get("api_key", [""])[-1:]
    return f"Bearer {key}"
