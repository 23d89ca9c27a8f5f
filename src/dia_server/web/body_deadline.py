"""A deadline for request bodies, which the HTTP server does not have."""

import asyncio

from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send

WINDOW_S = 20.0
"""Seconds of waiting for a body after which its rate is judged."""
MIN_BYTES = 20_000
"""Bytes that must arrive in a window: 1 kB/s."""


class BodyTooSlow(HTTPException):
    status_code = 408


class BodyDeadline:
    """An ASGI application around Litestar's: ends bodies that arrive with less than 1 kB/s.

    Only the time spent waiting for the client counts. `receive` has no deadline once the body is complete.
    """

    def __init__(self, app: ASGIApp, window_s: float = WINDOW_S) -> None:
        self._app = app
        self._window_s = window_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        complete, left_s, count = False, self._window_s, 0
        clock = asyncio.get_running_loop().time

        async def receive_in_time() -> ReceiveMessage:
            nonlocal complete, left_s, count
            if complete:
                return await receive()
            started = clock()
            try:
                # a client that has sent enough in this window has the next one too
                async with asyncio.timeout(left_s + (self._window_s if count >= MIN_BYTES else 0)):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow(
                    f"The body arrives too slowly: fewer than {MIN_BYTES:,} bytes in {self._window_s:.0f} s"
                ) from None
            left_s -= clock() - started
            if left_s <= 0:
                left_s, count = self._window_s, 0
            if message["type"] == "http.request":
                count += len(message["body"])
                complete = not message["more_body"]
            else:
                complete = True
            return message

        await self._app(scope, receive_in_time, send)
