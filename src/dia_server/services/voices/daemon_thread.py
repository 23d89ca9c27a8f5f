"""A thread for work that must not overlap, and that nobody waits for at the end.

Unlike an executor's, it doesn't keep the process alive: a model that is being downloaded when the
server is told to stop would.
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
    """Does calls one after the other; the thread begins with the first."""

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
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(run)
        return await asyncio.wrap_future(future)

    async def end(self, timeout_s: float) -> bool:
        """Let the thread end after the calls that it has; returns whether it did so in time."""
        self._calls.put(None)
        if self._thread.ident:
            await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
