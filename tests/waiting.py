import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[object]], timeout_s: float = 60) -> None:
    """Poll `condition` every 10 ms until it is true; raises TimeoutError after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Block until `condition` returns something true; raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)
