"""Runs codec work concurrently with decode steps: on its own thread and, on CUDA, its own stream.

On Metal the work runs on the calling thread instead.

The engine's thread keeps queueing steps while the background thread waits for the codec. The steps' stream
(`steps_stream`) has the higher priority, so the codec's kernels only use what the steps leave of the GPU.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache
from typing import ParamSpec, TypeVar

import torch

HIGH_PRIORITY = -1
"""CUDA stream priority of decode steps. Lower numbers go first; the default, 0, is the lowest priority."""

P = ParamSpec("P")
T = TypeVar("T")


def use_device(device: torch.device) -> None:
    """Make a CUDA `device` and its high-priority stream current in this thread.

    Also turns off cuDNN attention, for the whole process.
    """
    torch.cuda.set_device(device)
    torch.cuda.set_stream(steps_stream(device))
    # cuDNN attention builds a plan for each new text length, which takes longer than a decode step
    torch.backends.cuda.enable_cudnn_sdp(False)


@cache
def steps_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the device's stream for decode steps.

    There is one, because cuBLAS allocates a workspace for every stream and never frees it.
    """
    return torch.cuda.Stream(device, priority=HIGH_PRIORITY)  # type: ignore[no-untyped-call]


class BackgroundStream:
    """Runs one call at a time, in the order of submission."""

    def __init__(self, device: torch.device, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._stream: torch.cuda.Stream | None = None
        self._inline = device.type == "mps"
        """Whether `submit` runs the work on the calling thread: Metal takes commands from one thread only."""
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            # wait for the codec's tables, which are computed on the current stream
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `work` in the background and return its future; on Metal run it before returning."""

        def run() -> T:
            with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                return work(*args, **kwargs)

        if not self._inline:
            return self._thread.submit(run)
        done: Future[T] = Future()
        try:
            done.set_result(run())
        except Exception as error:  # noqa: BLE001 - raised by `Future.result`
            done.set_exception(error)
        return done

    def close(self) -> None:
        """Wait for the running call and cancel queued ones."""
        self._thread.shutdown(cancel_futures=True)
