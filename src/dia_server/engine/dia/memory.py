"""How much memory there is, and what it looks like when there is none left."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from dia_server.errors import GpuOutOfMemory
from dia_server.units import GIB

LEAST_MARGIN, MOST_MARGIN = 2 * GIB, 3 * GIB
"""Left free on a GPU for intermediate results, by its size: 0.9 GiB where 16 windows are decoded, 1.6 where a
recording of 30 s is encoded meanwhile, and the prefill's. With few slots less is ever decoded at once."""
RETRY_S = 5
CPU_SHARE = 0.6
"""Of the available memory; the rest stays with the machine."""


def available_bytes(device: torch.device) -> int:
    """What may be allocated on `device`, less the margin; 0 where that is exceeded already."""
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
    except OSError:  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def is_out_of_memory(error: BaseException) -> bool:
    """The allocators of CPUs and of Metal raise a plain RuntimeError, and so may CUDA's libraries."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in words or "out of memory" in words)


def release_cached() -> None:
    """Give what torch keeps for reuse back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def translate_oom(failure: str, spare: Callable[[], None]) -> Iterator[None]:
    """Raise a lack of memory as GpuOutOfMemory, in the words `failure`; `spare` gives back what can be."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        spare()
        release_cached()
        raise GpuOutOfMemory(f"{failure}; try again later", retry_after=RETRY_S) from error
