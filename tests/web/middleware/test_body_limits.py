import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from litestar.types import ASGIApp, Receive, Scope, Send

from dia_server.errors import Overloaded
from dia_server.web.middleware.body_limits import LARGE, MIN_BYTES, BodyLimits, BodyTooSlow
from dia_server.web.requests import held_body

WINDOW_S = 0.05
SCOPE: Any = {"type": "http", "headers": [(b"content-type", b"application/json")]}
UPLOAD: Any = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]}
END: Any = {"type": "http.request", "body": b"", "more_body": False}
GONE: Any = {"type": "http.disconnect"}


def address_of(scope: Scope) -> str:
    return str(scope.get("client", ("127.0.0.1", 1))[0])  # type: ignore[index]


def part(size: int) -> Any:
    return {"type": "http.request", "body": b"x" * size, "more_body": True}


class Client:
    """ASGI `receive` that returns `messages`, then blocks unless `then` is given."""

    def __init__(self, *messages: Any, then: Callable[[], Awaitable[Any]] | None = None) -> None:
        self._messages = list(messages)
        self._then = then or asyncio.Event().wait

    async def __call__(self) -> Any:
        return self._messages.pop(0) if self._messages else await self._then()


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a body to its end."""
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass


async def ignore(_: Any) -> None:
    pass


@pytest.mark.parametrize("sent", [(), (part(100),), (part(MIN_BYTES - 1),)])
async def test_a_body_that_stalls_is_rejected(sent: tuple[Any, ...]) -> None:
    with pytest.raises(BodyTooSlow, match="too slowly"):
        await BodyLimits(read, address_of, window_s=WINDOW_S)(SCOPE, Client(*sent), ignore)


async def test_a_body_below_the_minimum_rate_is_rejected() -> None:
    async def trickle() -> Any:
        await asyncio.sleep(WINDOW_S / 10)
        return part(1)

    with pytest.raises(BodyTooSlow):
        await BodyLimits(read, address_of, window_s=WINDOW_S)(SCOPE, Client(then=trickle), ignore)


async def test_a_body_at_the_minimum_rate_is_received() -> None:
    left = 30

    async def slowly() -> Any:
        nonlocal left
        await asyncio.sleep(WINDOW_S / 10)
        left -= 1
        return part(MIN_BYTES) if left else END

    await BodyLimits(read, address_of, window_s=WINDOW_S)(SCOPE, Client(then=slowly), ignore)


async def test_the_handlers_own_time_does_not_count() -> None:
    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(2 * WINDOW_S)
        await receive()

    await BodyLimits(busy, address_of, window_s=WINDOW_S)(SCOPE, Client(part(1), END), ignore)


async def test_waiting_for_the_client_to_leave_has_no_deadline() -> None:
    async def leave() -> Any:
        await asyncio.sleep(2 * WINDOW_S)
        return GONE

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == END
        assert await receive() == GONE

    await BodyLimits(answer, address_of, window_s=WINDOW_S)(SCOPE, Client(END, then=leave), ignore)


async def test_unfinished_bodies_have_a_total_memory_limit() -> None:
    app: ASGIApp = BodyLimits(read, address_of, max_held=1000)
    unfinished = asyncio.ensure_future(app(SCOPE, Client(part(600)), ignore))
    await asyncio.sleep(0)

    with pytest.raises(Overloaded):
        await app(SCOPE, Client(part(600), END), ignore)
    await app(UPLOAD, Client(part(600), END), ignore)
    unfinished.cancel()
    await asyncio.wait([unfinished])
    await app(SCOPE, Client(part(600), END), ignore)


async def test_a_large_complete_body_counts_until_its_handler_drops_it() -> None:
    received, dropping = asyncio.Event(), asyncio.Event()

    def scope() -> Any:
        return dict(SCOPE)

    async def generate(scope: Scope, receive: Receive, send: Send) -> None:
        await read(scope, receive, send)
        received.set()
        await dropping.wait()
        held_body.release(scope)
        await asyncio.Event().wait()

    limits = BodyLimits(generate, address_of, max_held=3 * LARGE)
    running = asyncio.ensure_future(limits(scope(), Client(part(2 * LARGE), END), ignore))
    await received.wait()
    with pytest.raises(Overloaded):
        await limits(scope(), Client(part(2 * LARGE), END), ignore)
    small = asyncio.ensure_future(limits(scope(), Client(part(LARGE // 2), END), ignore))
    await asyncio.sleep(0)

    received.clear()
    dropping.set()
    again = asyncio.ensure_future(limits(scope(), Client(part(2 * LARGE), END), ignore))
    await asyncio.wait_for(received.wait(), 5)
    for task in (running, small, again):
        assert not task.done()
        task.cancel()
    await asyncio.wait([running, small, again])


async def test_unfinished_bodies_have_a_memory_limit_per_address() -> None:
    app: ASGIApp = BodyLimits(read, address_of, max_held_per_address=1000)
    unfinished = asyncio.ensure_future(app(SCOPE, Client(part(600)), ignore))
    await asyncio.sleep(0)

    with pytest.raises(Overloaded):
        await app(SCOPE, Client(part(600), END), ignore)
    await app(SCOPE | {"client": ("127.0.0.2", 1)}, Client(part(600), END), ignore)
    unfinished.cancel()
    await asyncio.wait([unfinished])
