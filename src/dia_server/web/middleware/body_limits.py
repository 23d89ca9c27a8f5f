"""Limits how slowly request bodies arrive and how much memory they take; the HTTP server limits neither."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send

from dia_server.errors import Overloaded
from dia_server.units import MIB
from dia_server.web.requests import held_body

WINDOW_S = 20.0
"""Seconds of waiting for the client in which MIN_BYTES of a body must arrive."""
MIN_BYTES = 20_000
"""Minimum bytes of a body per window of WINDOW_S, which is 1 kB/s."""
MAX_HELD = 256 * MIB
"""Maximum bytes of all unfinished or large bodies in memory; uploads go to the disk and do not count."""
MAX_HELD_PER_ADDRESS = 32 * MIB
"""Maximum bytes of unfinished or large bodies in memory per client address."""
LARGE = MIB
"""Bytes above which a complete body counts, until its handler drops it (see `held_body.release`)."""
RETRY_S = 10
"""Retry-After in seconds when the memory for bodies is used up."""


class BodyTooSlow(HTTPException):
    status_code = 408


class BodyLimits:
    """ASGI wrapper that rejects bodies that arrive too slowly or exceed the memory for bodies.

    The rate counts only the time spent waiting for the client. Once the body is complete, `receive` has no
    deadline.
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
        """Counted bytes of bodies in memory, by client address."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        body = _Body(self._client_address(scope), self._window_s)
        extended: dict[str, Any] = scope  # type: ignore[assignment]
        extended[held_body.RELEASE] = lambda: self._account(body, 0)
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
        """Count the received bytes of `body` as in memory, or 0 once it is complete and not large.

        Raises Overloaded if all counted bodies, or those of the address, exceed their limit.
        """
        self._account(body, 0 if body.complete and body.arrived <= LARGE else body.arrived)
        if body.held and (
            self._held[body.address] > self._max_held_of_address or self._held.total() > self._max_held
        ):
            raise Overloaded(
                "Too many request bodies in memory: the limits are "
                f"{self._max_held_of_address:,} bytes per address and {self._max_held:,} bytes in total; "
                f"try again in {RETRY_S} s",
                retry_after=RETRY_S,
            )

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
        """Bytes of this body that `BodyLimits` counts as in memory."""
        self._window_s = window_s
        self._left_s = window_s
        self._in_window = 0

    async def wait(self, receive: Receive) -> ReceiveMessage:
        """Return the next ASGI message; raises BodyTooSlow if a window ends with fewer than MIN_BYTES."""
        clock = asyncio.get_running_loop().time
        started = clock()
        # enough bytes in this window extend the deadline by another window
        allowed_s = self._left_s + (self._window_s if self._in_window >= MIN_BYTES else 0)
        try:
            async with asyncio.timeout(allowed_s):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"The body arrived too slowly: the minimum is {MIN_BYTES:,} bytes in {self._window_s:g} s"
            ) from None
        self._left_s -= clock() - started
        if self._left_s <= 0:
            self._left_s, self._in_window = self._window_s, 0
        if message["type"] == "http.request":
            self.arrived += len(message["body"])
            self._in_window += len(message["body"])
        self.complete = message["type"] != "http.request" or not message["more_body"]
        return message
