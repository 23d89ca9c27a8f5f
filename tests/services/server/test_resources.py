import pynvml  # type: ignore[import-untyped]
import pytest

from dia_server.engine.devices import Device, Load
from dia_server.services.server import resources
from dia_server.services.server.resources import ResourceMonitor
from dia_server.units import GIB


def test_gpus_without_nvml_are_measured_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    loads = {"cuda:0": Load(busy=75.0, memory=3 * GIB), "cuda:1": None}
    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    monkeypatch.setattr(resources, "measure_load", lambda device: loads[device.torch_name])
    devices = [Device(name, "Radeon", 24 * GIB) for name in loads]

    now = ResourceMonitor([*devices, Device("mps", "arm", 16 * GIB)]).measure()

    assert (now.gpu_percent, now.gpu_memory_gib) == ([75.0, None], [3.0, None])
    assert ResourceMonitor().measure().gpu_percent == []
