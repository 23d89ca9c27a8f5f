"""Memory that may be allocated on a device, and recognition of out-of-memory errors."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from dia_server.errors import GpuOutOfMemory
from dia_server.units import GIB

LEAST_MARGIN, MOST_MARGIN = 2 * GIB, 3 * GIB
"""Minimum and maximum bytes of a GPU left free for intermediate results.

Within these limits the margin is an eighth of the GPU's memory. Decoding 16 windows takes 0.9 GiB, or 1.6 GiB
while a recording of 30 s is being encoded. Prefill needs more in addition.
"""
RETRY_S = 5
"""Seconds after which a client may retry a request that ran out of memory."""
CPU_SHARE = 0.6
"""Share of the available RAM that the model may use."""


def available_bytes(device: torch.device) -> int:
    """Return the bytes that Dia may allocate on `device`.

    On GPUs this is the free memory less a margin for intermediate results. On Metal the free memory is the
    recommended maximum less what is allocated. On CPUs it is CPU_SHARE of the available RAM.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, free - _margin(total))
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return max(0, total - torch.mps.driver_allocated_memory() - _margin(total))
    return int(_available_ram() * CPU_SHARE)


def _margin(total: int) -> int:
    return min(MOST_MARGIN, max(LEAST_MARGIN, total // 8))


def _available_ram() -> int:
    try:
        with open("/proc/meminfo") as lines:
            values = dict(line.split(":") for line in lines)
        return int(values["MemAvailable"].split()[0]) << 10
    except OSError:  # not Linux: assume that half of the RAM is available
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` means out of memory; CPU and Metal allocators raise a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in words or "out of memory" in words)


def release_cached() -> None:
    """Return torch's cached free memory to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def translate_oom(failure: str, spare: Callable[[], None]) -> Iterator[None]:
    """Turn an out-of-memory error of the block into GpuOutOfMemory, whose message begins with `failure`.

    Before raising, calls `spare`, which frees caches, and `release_cached`. Does not run the block again.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        spare()
        release_cached()
        raise GpuOutOfMemory(f"{failure}; try again later", retry_after=RETRY_S) from error
