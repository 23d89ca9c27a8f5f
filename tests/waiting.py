import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Poll `condition`, which may be async, every 10 ms until it is true; raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not await _value_of(condition):
            await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Poll `condition`, every 20 ms and later every 100 ms, until it is true; raises TimeoutError."""
    started = time.monotonic()
    while not condition():
        if (waited := time.monotonic() - started) > timeout_s:
            raise TimeoutError
        time.sleep(min(0.02 + waited / 20, 0.1))  # most conditions are requests, which take 10 ms of a core


def early_in_a_minute(seconds: float = 5) -> None:
    """Block until the minute of the clock lasts `seconds` more: rate limits count by the minute."""
    if (left := 60 - time.time() % 60) < seconds:
        time.sleep(left)


async def _value_of(condition: Callable[[], object]) -> object:
    value = condition()
    return await value if isawaitable(value) else value
