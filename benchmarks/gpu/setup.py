"""What the checks share: the device, the sizes of the work, and timing."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.report import Refused
from benchmarks.limits import read_bandwidth, synchronize
from benchmarks.models import SIZES
from dia_server.engine.dia.background_stream import use_device
from dia_server.engine.dia.loader import count_slots, pick_device
from dia_server.engine.dia.memory import device_memory
from dia_server.engine.dia.weights import Weights
from dia_server.units import GIB, MIB

BATCHES = (1, 8, 32, 64)
"""Batch sizes that are measured, if there are as many slots."""


@dataclass(frozen=True, slots=True)
class Setup:
    device: str
    """Torch device name: "cuda:0", or "cpu" for a rehearsal."""
    size: str
    """Key of `benchmarks.models.SIZES`."""
    out: Path

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def most_slots(self) -> int:
        return max(BATCHES) if self.on_gpu else 8

    @property
    def steps(self) -> int:
        """Decode steps of one timed call."""
        return 256 if self.on_gpu else 8

    @property
    def polls(self) -> int:
        """Polls of one measurement; a third of them warm up."""
        return 60 if self.on_gpu else 9

    @property
    def has_targets(self) -> bool:
        """Whether the targets apply: on a GPU with the real size."""
        return self.on_gpu and self.size == "1.6B"

    def fit_slots(self, weights: Weights) -> int:
        """Return the slots that fit beside what is allocated, as many as the server would take."""
        where = torch.device(self.device)
        return count_slots(weights.config, weights.dtype, self.most_slots, device_memory(where))

    def batches(self, slots: int) -> list[int]:
        """Return the batch sizes to measure: those of BATCHES that fit, and a batch of all slots."""
        return sorted({*(batch for batch in BATCHES if batch < slots), slots})


def prepare(setup: Setup) -> None:
    """Make the device current in this thread; raises Refused if torch or the options do not allow it."""
    if setup.size not in SIZES:
        raise Refused(f"--size {setup.size!r} is none of {', '.join(SIZES)}.")
    if not setup.on_gpu:
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"  # for worker processes
    elif not torch.cuda.is_available():
        raise Refused(
            "gpu-check needs a GPU that torch can use (CUDA or ROCm); none was found. "
            "A rehearsal without one: --device cpu --size toy."
        )
    else:
        use_device(pick_device(setup.device))


def measure_bandwidth(setup: Setup) -> float:
    """Return bytes read per second, measured over a quarter of the free memory, 8 GiB at most."""
    if not setup.on_gpu:
        return read_bandwidth(setup.device, 64 * MIB)
    free, _ = torch.cuda.mem_get_info(setup.device)
    bandwidth = read_bandwidth(setup.device, min(8 * GIB, free // 4))
    torch.cuda.empty_cache()
    return bandwidth


def elapsed(call: Callable[[], object], device: str) -> float:
    """Return the seconds of `call`, until the device has done its work."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def time_each(call: Callable[[], object], count: int, device: str) -> float:
    """Return the seconds of `call`, the best of 5 rounds of `count` calls.

    On CUDA a round is one captured graph: launching small kernels from Python takes longer than they run.
    """
    call()
    if not device.startswith("cuda"):
        return min(elapsed(call, device) for _ in range(5))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    graph.replay()
    return min(elapsed(graph.replay, device) for _ in range(5)) / count
