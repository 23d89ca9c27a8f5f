import subprocess
import sys

import pytest
import torch

from dia_server.engine import devices
from dia_server.engine.devices import accelerators, has_driver


@pytest.mark.skipif(has_driver(), reason="this machine has an accelerator")
def test_without_a_driver_torch_is_not_imported() -> None:
    code = (
        "import sys; from dia_server.engine.devices import accelerators; "
        "assert accelerators() == []; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty CUDA_VISIBLE_DEVICES the driver still reports devices, but torch does not."""
    monkeypatch.setattr(devices, "has_driver", lambda: True)
    assert len(accelerators()) == torch.cuda.device_count() or torch.backends.mps.is_available()


@pytest.mark.gpu
@pytest.mark.skipif(not has_driver(), reason="no accelerator")
def test_every_gpu_has_a_name_memory_and_a_load() -> None:
    for device in accelerators():
        load = devices.measure_load(device)
        assert device.model
        assert load is not None
        assert 0 < load.memory <= device.memory
