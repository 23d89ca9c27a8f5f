"""Runs calls on several child processes, so that the crash of one delays only its own call."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import LifoQueue
from typing import Concatenate, Generic, ParamSpec, TypeVar

from dia_server.native.worker import NativeWorker

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


class NativePool(Generic[S]):
    """Distributes calls to idle workers, with one thread per worker; `submit` is thread-safe."""

    def __init__(self, workers: Sequence[NativeWorker[S]]) -> None:
        self._workers = workers
        self._idle: LifoQueue[NativeWorker[S]] = LifoQueue()
        for worker in reversed(workers):
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(len(workers), "native")

    def start(self) -> None:
        """Start all children in the background; returns at once.

        Errors are discarded: a call starts its child again if necessary, and raises if that fails too.
        """
        for _ in self._workers:
            self._threads.submit(self._with_worker, NativeWorker.wait)

    def submit(self, method: Callable[Concatenate[S, P], R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Queue `NativeWorker.call` for the next idle worker; return the future of its result."""
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
