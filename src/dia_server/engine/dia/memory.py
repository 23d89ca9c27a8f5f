"""Memory of a device and what fits into it, and recognition of out-of-memory errors."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dia_server.errors import GpuOutOfMemory
from dia_server.units import GIB, MIB

LEAST_MARGIN, FULL_MARGIN, MOST_MARGIN = GIB, 2 * GIB, 3 * GIB
"""Bytes of a GPU left free for intermediate results: with FEW_SLOTS or fewer, with MANY_SLOTS or more, and on
large GPUs, where the margin is an eighth of the memory.

Decoding takes at most 0.23 GiB (`windows.MAX_FRAMES` at a time), which CUDA graphs keep; encoding a recording
of 30 s takes 0.7 GiB at the same time. Prefill needs more in addition.
"""
FEW_SLOTS, MANY_SLOTS = 4, 16
PROMPT_BYTES = 512 * MIB
"""Maximum size of the prompt cache in bytes, room for about 16 prompts of ten seconds."""
PROMPT_PERCENT = 5
"""Maximum size of the prompt cache in percent of the device's memory."""
RETRY_S = 5
"""Seconds after which a client may retry a request that ran out of memory."""
CPU_SHARE = 0.6
"""Share of the available RAM that the model may use."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of a device, in bytes."""

    total: int
    free: int
    """Bytes that Dia may allocate, including the margin."""
    on_gpu: bool
    """Whether intermediate results need a margin; on CPUs, `free` is only a share of what is available."""

    @property
    def prompt_bytes(self) -> int:
        """Size of the prompt cache."""
        return min(PROMPT_BYTES, self.total * PROMPT_PERCENT // 100)

    def margin(self, slots: int) -> int:
        """Return the bytes left free for intermediate results with `slots` slots."""
        if not self.on_gpu:
            return 0
        steps = min(max(slots, FEW_SLOTS), MANY_SLOTS) - FEW_SLOTS
        by_slots = LEAST_MARGIN + (FULL_MARGIN - LEAST_MARGIN) * steps // (MANY_SLOTS - FEW_SLOTS)
        return max(by_slots, min(MOST_MARGIN, self.total // 8))

    def available(self, slots: int) -> int:
        """Return the bytes for weights and `slots` slots, next to the prompt cache and the margin."""
        return max(0, self.free - self.prompt_bytes - self.margin(slots))

    def fitting_slots(self, each: int, most: int) -> int:
        """Return how many slots of `each` bytes fit, at most `most`; 0 if none does."""
        return max(
            (count for count in range(1, most + 1) if count * each <= self.available(count)), default=0
        )


def device_memory(device: torch.device) -> DeviceMemory:
    """Return the memory of `device`.

    On Metal the total is the recommended maximum. On CPUs it is the available RAM, of which CPU_SHARE counts
    as free.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(total, free, on_gpu=True)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return DeviceMemory(total, total - torch.mps.driver_allocated_memory(), on_gpu=True)
    available = _available_ram()
    return DeviceMemory(available, int(available * CPU_SHARE), on_gpu=False)


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
