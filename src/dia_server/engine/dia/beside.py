"""Work beside the steps: a thread, and on CUDA a stream of its own.

The engine's thread goes on queueing steps while another waits here for the codec. The steps' stream has a
higher priority (`steps_stream`), so that the codec's kernels fill what those leave of the GPU.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

HIGH_PRIORITY = -1
"""CUDA's default, 0, is the lowest there is."""

P = ParamSpec("P")
T = TypeVar("T")


def take(device: torch.device) -> None:
    """Make a CUDA `device` this thread's, with a stream whose work goes before that of the codec."""
    torch.cuda.set_device(device)
    torch.cuda.set_stream(steps_stream(device))


def steps_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority=HIGH_PRIORITY)  # type: ignore[no-untyped-call]


class Beside:
    """One call at a time, in the order they were submitted."""

    def __init__(self, device: torch.device, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def run() -> T:
            with torch.cuda.stream(self._stream):  # None changes nothing
                return work(*args, **kwargs)

        return self._thread.submit(run)

    def close(self) -> None:
        """Wait for what has begun, and drop the rest."""
        self._thread.shutdown(cancel_futures=True)
