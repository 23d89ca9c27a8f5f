"""Several children for the same calls, so that a crash of one delays only its own call."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import LifoQueue
from typing import Concatenate, Generic, ParamSpec, TypeVar

from dia_server.native.worker import NativeWorker

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


class NativePool(Generic[S]):
    """Distributes calls to idle workers; `submit` is thread-safe, and each worker has a thread."""

    def __init__(self, workers: Sequence[NativeWorker[S]]) -> None:
        self._workers = workers
        self._idle: LifoQueue[NativeWorker[S]] = LifoQueue()
        for worker in reversed(workers):
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(len(workers), "native")

    def start(self) -> None:
        """Start all children in the background; returns at once.

        If a child cannot be started, the first call raises the error.
        """
        for _ in self._workers:
            self._threads.submit(self._with_worker, NativeWorker.wait)

    def submit(self, method: Callable[Concatenate[S, P], R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run `NativeWorker.call` on the next idle worker."""
        return self._threads.submit(self._with_worker, lambda worker: worker.call(method, *args, **kwargs))

    def close(self) -> None:
        """Kill the children; running calls raise Closed, queued calls are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def _with_worker(self, work: Callable[[NativeWorker[S]], R]) -> R:
        worker = self._idle.get()
        try:
            return work(worker)
        finally:
            self._idle.put(worker)
