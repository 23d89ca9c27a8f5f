"""Detects the accelerators of this machine, without importing torch if no driver is installed.

Importing torch takes a second and several hundred megabytes. With a driver it is needed: only torch knows
which devices its build supports and which ones CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES or MIG make visible.
"""

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

ROCM_DRIVER = Path("/dev/kfd")


@dataclass(frozen=True, slots=True)
class Device:
    torch_name: str
    """Torch device name: "cuda:0" (also for ROCm) or "mps"."""
    model: str
    memory: int
    """Total device memory in bytes; on "mps", the recommended maximum of the memory shared with the CPU."""


@dataclass(frozen=True, slots=True)
class Load:
    busy: float
    """GPU utilization in percent, over the driver's last sample period."""
    memory: int
    """Device memory in use by all processes, in bytes."""


def accelerators() -> list[Device]:
    """Return all GPUs that torch can use, in torch's order; empty if there are none."""
    if not has_driver():
        return []
    import torch

    if torch.backends.mps.is_available():
        return [Device("mps", platform.processor(), torch.mps.recommended_max_memory())]
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [Device(f"cuda:{i}", p.name, p.total_memory) for i, p in enumerate(properties)]


def has_driver() -> bool:
    """Return whether there is a GPU driver: on Apple silicon always, else ROCm's, or NVIDIA's with a GPU."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return ROCM_DRIVER.exists() or _nvidia_devices() > 0


def measure_load(device: Device) -> Load | None:
    """Return the current load of `device`, or None on MPS or if the driver cannot measure it.

    Asks the driver only, so that no CUDA context is created on the device.
    """
    if device.torch_name == "mps":
        return None
    import torch

    try:
        busy = torch.cuda.utilization(device.torch_name)
        return Load(busy, torch.cuda.device_memory_used(device.torch_name))
    except Exception:  # noqa: BLE001 - NVIDIA's and AMD's libraries raise unrelated types
        return None


def _nvidia_devices() -> int:
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()
