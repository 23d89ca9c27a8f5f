"""The accelerators of this machine, seen without importing torch where there is no driver for one.

Importing torch takes a second and several hundred megabytes: too much for a process that only asks. Where a
driver is found torch is asked after all, since it alone knows what it was built for and what
CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES or MIG leave of the machine.
"""

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

ROCM_DRIVER = Path("/dev/kfd")


@dataclass(frozen=True, slots=True)
class Device:
    torch_name: str
    """Torch's name of the device: "cuda:0" (also for ROCm) or "mps"."""
    model: str
    memory: int
    """Bytes in all; on "mps" what may be used of the machine's."""


@dataclass(frozen=True, slots=True)
class Load:
    busy: float
    """Percent of the last moment in which the device computed."""
    memory: int
    """Bytes in use, by whatever process."""


def accelerators() -> list[Device]:
    """Every device an engine process can be given, in torch's order; none means the CPU."""
    if not has_driver():
        return []
    import torch

    if torch.backends.mps.is_available():
        return [Device("mps", platform.processor(), torch.mps.recommended_max_memory())]
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [Device(f"cuda:{i}", p.name, p.total_memory) for i, p in enumerate(properties)]


def has_driver() -> bool:
    """Whether it is worth asking torch."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return ROCM_DRIVER.exists() or _nvidia_devices() > 0


def measure_load(device: Device) -> Load | None:
    """Return the current load of `device`, or None if unknown (MPS, or a driver without a monitor).

    Asks the driver and creates no context on the device.
    """
    if device.torch_name == "mps":
        return None
    import torch

    try:
        busy = torch.cuda.utilization(device.torch_name)
        return Load(busy, torch.cuda.device_memory_used(device.torch_name))
    except Exception:  # noqa: BLE001 - NVIDIA's and AMD's monitors have no common base for their failures
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
