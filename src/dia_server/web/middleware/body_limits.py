"""Limits on request bodies while they arrive, which the HTTP server does not have."""

import asyncio
from collections import Counter
from collections.abc import Callable

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send

from dia_server.errors import Overloaded

WINDOW_S = 20.0
"""Seconds of waiting for a body after which its rate is judged."""
MIN_BYTES = 20_000
"""Bytes that must arrive in a window: 1 kB/s."""
MAX_HELD = 256 * 1024 * 1024
"""Bytes of all unfinished bodies in memory; uploads go to the disk."""
MAX_HELD_PER_ADDRESS = 32 * 1024 * 1024
"""Bytes of them that are of one address."""
RETRY_S = 10
"""Seconds after which a client whose body found no memory may try again."""


class BodyTooSlow(HTTPException):
    status_code = 408


class BodyLimits:
    """An ASGI application around Litestar's: ends bodies that arrive too slowly, or find no memory.

    Only the time spent waiting for the client counts. `receive` has no deadline once the body is complete.
    """

    def __init__(
        self,
        app: ASGIApp,
        client_address: Callable[[Scope], str],
        *,
        window_s: float = WINDOW_S,
        max_held: int = MAX_HELD,
        max_held_per_address: int = MAX_HELD_PER_ADDRESS,
    ) -> None:
        self._app = app
        self._client_address = client_address
        self._window_s = window_s
        self._max_held = max_held
        self._max_held_of_address = max_held_per_address
        self._held: Counter[str] = Counter()
        """Bytes that are held, by address."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        body = _Body(self._client_address(scope), self._window_s)
        in_memory = not Headers.from_scope(scope).get("content-type", "").startswith("multipart/")

        async def receive_limited() -> ReceiveMessage:
            if body.complete:
                return await receive()
            message = await body.wait(receive)
            if in_memory:
                self._hold(body)
            return message

        try:
            await self._app(scope, receive_limited, send)
        finally:
            self._account(body, 0)

    def _hold(self, body: "_Body") -> None:
        """Account for what has arrived of `body`; raises Overloaded where that is too much."""
        self._account(body, 0 if body.complete else body.arrived)
        if body.held and (
            self._held[body.address] > self._max_held_of_address or self._held.total() > self._max_held
        ):
            raise Overloaded("Too many unfinished requests are being received", retry_after=RETRY_S)

    def _account(self, body: "_Body", held: int) -> None:
        self._held[body.address] += held - body.held
        body.held = held
        if not self._held[body.address]:
            del self._held[body.address]


class _Body:
    def __init__(self, address: str, window_s: float) -> None:
        self.address = address
        self.complete = False
        self.arrived = 0
        self.held = 0
        """Bytes that are accounted for."""
        self._window_s = window_s
        self._left_s = window_s
        self._in_window = 0

    async def wait(self, receive: Receive) -> ReceiveMessage:
        """Return the next message; raises BodyTooSlow."""
        clock = asyncio.get_running_loop().time
        started = clock()
        # a client that has sent enough in this window has the next one too
        allowed_s = self._left_s + (self._window_s if self._in_window >= MIN_BYTES else 0)
        try:
            async with asyncio.timeout(allowed_s):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"The body arrives too slowly: fewer than {MIN_BYTES:,} bytes in {self._window_s:g} s"
            ) from None
        self._left_s -= clock() - started
        if self._left_s <= 0:
            self._left_s, self._in_window = self._window_s, 0
        if message["type"] == "http.request":
            self.arrived += len(message["body"])
            self._in_window += len(message["body"])
        self.complete = message["type"] != "http.request" or not message["more_body"]
        return message
