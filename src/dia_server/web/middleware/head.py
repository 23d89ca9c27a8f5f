"""HEAD: answered like GET, without the body."""

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseBodyEvent, Message, Receive, Scope, Send

NOTHING: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}


class HeadAsGet:
    """An ASGI application around Litestar's, which knows GET handlers only.

    The answer ends in place of its body's first part. After that `receive` says that the client has gone, so
    that a file whose bytes would be dropped is not read on.
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

        scope["method"] = "GET"  # in place: the applications around this one read what is added to the scope
        try:
            await self._app(scope, receive, send_headers)
        finally:
            scope["method"] = "HEAD"
