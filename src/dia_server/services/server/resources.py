"""Utilization of processor, memory and GPUs.

All NVIDIA GPUs, also those that the server does not use, are measured through NVML, without torch. AMD GPUs
are measured through torch, which needs AMD's `amdsmi`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import psutil  # type: ignore[import-untyped]
import pynvml  # type: ignore[import-untyped]

from dia_server.engine.devices import Device, measure_load
from dia_server.units import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    cpu_percent: float
    """CPU utilization, averaged over all cores and over the time since the previous measurement."""
    memory_percent: float
    gpu_percent: list[float | None]
    """Utilization of each GPU; None if its driver does not report it, as for MIG instances."""
    gpu_memory_gib: list[float | None]
    """GiB in use on each GPU by all processes; None if its driver does not report it."""


class ResourceMonitor:
    def __init__(self, devices: Sequence[Device] = ()) -> None:
        """`devices` are the engines' devices, measured through torch if NVML is not available."""
        # left out: MPS reports no load
        self._devices = [device for device in devices if device.torch_name != "mps"]
        self._lock = Lock()
        """Serializes measurements: each one initializes and shuts down NVML for the whole process."""
        psutil.cpu_percent()  # this first call returns 0, and starts the interval of the next average

    def measure(self) -> Resources:
        """Measure CPU, memory and GPUs. Blocks for 1 ms, longer with GPUs, so call it in a thread."""
        with self._lock:
            usage, memory = self._gpus()
        return Resources(
            cpu_percent=psutil.cpu_percent(),
            memory_percent=psutil.virtual_memory().percent,
            gpu_percent=usage,
            gpu_memory_gib=memory,
        )

    def _gpus(self) -> tuple[list[float | None], list[float | None]]:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:  # no NVIDIA driver
            loads = [measure_load(device) for device in self._devices]
            return (
                [None if load is None else load.busy for load in loads],
                [None if load is None else round(load.memory / GIB, 2) for load in loads],
            )
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            return [_query(_usage, handle) for handle in handles], [
                _query(_memory, handle) for handle in handles
            ]
        except pynvml.NVMLError:
            return [], []
        finally:
            pynvml.nvmlShutdown()


def _usage(device: Any) -> float:
    return float(pynvml.nvmlDeviceGetUtilizationRates(device).gpu)


def _memory(device: Any) -> float:
    return float(pynvml.nvmlDeviceGetMemoryInfo(device).used) / GIB


def _query(question: Callable[[Any], float], device: Any) -> float | None:
    try:
        return round(question(device), 2)
    except pynvml.NVMLError:
        return None
