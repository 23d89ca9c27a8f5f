"""Answers 304 if the client has cached the current version of a response."""

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPResponseBodyEvent, Message, Receive, Scope, Send

NOTHING: HTTPResponseBodyEvent = {"type": "http.response.body", "body": b"", "more_body": False}


class NotModified(ASGIMiddleware):
    """Answers 304 if `If-None-Match` has the response's `ETag`; Litestar itself does not compare them."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        named = Headers.from_scope(scope).get("if-none-match", "").split(",")
        # ignore the W/ of weak ETags, which a compressing proxy adds
        known = {tag.strip().removeprefix("W/") for tag in named}
        unchanged = False

        async def send_what_is_new(message: Message) -> None:
            nonlocal unchanged
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders.from_message(message)
                if unchanged := message["status"] == 200 and headers.get("etag") in known:
                    message["status"] = 304
                    del headers["content-length"]
                    await send(message)
                    await send(NOTHING)
            if not unchanged:
                await send(message)

        await next_app(scope, receive, send_what_is_new)
