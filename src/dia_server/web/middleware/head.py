"""Answers HEAD requests like GET, without the body."""

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseBodyEvent, Message, Receive, Scope, Send

NOTHING: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}


class HeadAsGet:
    """ASGI wrapper that runs the GET handler for HEAD; Litestar has no HEAD handlers of its own.

    The first body message is replaced with an empty final one. The HTTP server then reports a disconnect, so
    that Litestar stops reading a streamed file.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        ended = False

        async def send_headers(message: Message) -> None:
            nonlocal ended
            if message["type"] != "http.response.body":
                await send(message)
            elif not ended:
                ended = True
                await send(NOTHING)

        # change the scope, not a copy: outer wrappers read what Litestar adds to it
        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_headers)
        finally:
            scope["method"] = "HEAD"
