"""Sends `Connection: close` with a response that starts before the request body has been read."""

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, ReceiveMessage, Scope, Send


class CloseUnreadBody:
    """ASGI wrapper that adds `Connection: close` if part of the body is unread when the response starts.

    The HTTP server then closes the connection, because it would take the unread bytes for the next request.
    Without the header the client reuses the connection, and its next request fails.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = Headers.from_scope(scope)
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def receive_noted() -> ReceiveMessage:
            nonlocal unread
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                unread = False
            return message

        async def send_told(message: Message) -> None:
            if unread and message["type"] == "http.response.start":
                MutableScopeHeaders.from_message(message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive_noted, send_told)
