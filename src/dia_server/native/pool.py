"""Several children for the same calls, so that a crash of one keeps only its own call waiting."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import LifoQueue
from typing import Concatenate, Generic, ParamSpec, TypeVar

from dia_server.native.worker import NativeWorker

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


class NativePool(Generic[S]):
    """`submit` a call from any thread; each worker has a thread that waits for it."""

    def __init__(self, workers: Sequence[NativeWorker[S]]) -> None:
        self._workers = workers
        self._idle: LifoQueue[NativeWorker[S]] = LifoQueue()
        for worker in reversed(workers):
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(len(workers), "native")

    def start(self) -> None:
        """Start the children now rather than when they are needed; returns at once.

        A child that cannot be started tells why at the first call.
        """
        for _ in self._workers:
            self._threads.submit(self._with_worker, NativeWorker.wait)

    def submit(self, method: Callable[Concatenate[S, P], R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As `NativeWorker.call`, by the next worker that is idle."""
        return self._threads.submit(self._with_worker, lambda worker: worker.call(method, *args, **kwargs))

    def close(self) -> None:
        """End the children; calls that they run raise Closed, calls that wait for one are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def _with_worker(self, work: Callable[[NativeWorker[S]], R]) -> R:
        worker = self._idle.get()
        try:
            return work(worker)
        finally:
            self._idle.put(worker)
