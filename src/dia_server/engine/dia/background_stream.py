"""Work beside the steps: a thread, and on CUDA a stream of its own.

The engine's thread goes on queueing steps while another waits here for the codec. The steps' stream has a
higher priority (`steps_stream`), so that the codec's kernels fill what those leave of the GPU.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import ParamSpec, TypeVar

import torch

HIGH_PRIORITY = -1
"""CUDA's default, 0, is the lowest there is."""

P = ParamSpec("P")
T = TypeVar("T")


def use_device(device: torch.device) -> None:
    """Make a CUDA `device` this thread's, with a stream whose work goes before that of the codec."""
    torch.cuda.set_device(device)
    torch.cuda.set_stream(steps_stream(device))
    # cuDNN's attention makes a plan for each new length of a text, which takes longer than a step
    torch.backends.cuda.enable_cudnn_sdp(False)


def steps_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority=HIGH_PRIORITY)  # type: ignore[no-untyped-call]


class BackgroundStream:
    """One call at a time, in the order they were submitted."""

    def __init__(self, device: torch.device, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._stream: torch.cuda.Stream | None = None
        self._inline = device.type == "mps"
        """Metal takes commands from one thread only."""
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))  # the codec's tables are made there

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def run() -> T:
            with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                return work(*args, **kwargs)

        if not self._inline:
            return self._thread.submit(run)
        done: Future[T] = Future()
        try:
            done.set_result(run())
        except Exception as error:  # noqa: BLE001 - it is for who asks for the result
            done.set_exception(error)
        return done

    def close(self) -> None:
        """Wait for what has begun, and drop the rest."""
        self._thread.shutdown(cancel_futures=True)
