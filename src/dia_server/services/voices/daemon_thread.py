"""A daemon thread that runs calls one at a time.

The threads of a ThreadPoolExecutor are joined at interpreter exit, so a model download would delay
the shutdown; a daemon thread is not joined.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThread:
    """Runs calls in order on one daemon thread, which starts with the first call."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if not self._thread.ident:
            self._thread.start()
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - raised by the caller's `await`
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(run)
        return await asyncio.wrap_future(future)

    async def end(self, timeout_s: float) -> bool:
        """End the thread after its queued calls; return False if it still runs after `timeout_s` seconds."""
        self._calls.put(None)
        if self._thread.ident:
            await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
