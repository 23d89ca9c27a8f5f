"""The number of engines, and what `/config` reports about it."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from litestar.testing import AsyncTestClient

from dia_server import composition, engines
from dia_server.app import create_app
from dia_server.engine.devices import Device
from dia_server.engine.types import Model
from dia_server.settings import Settings
from tests.tones import ToneModel

Loaded = list[str]
"""Devices on which models were loaded."""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """Devices on which a fake Dia was loaded, on a machine with two fake GPUs."""
    devices: Loaded = []

    def load(_: Callable[[float], None], *, device: str, **__: Any) -> Model:
        devices.append(device)
        return ToneModel()

    def never(device: str, count: int) -> bool:
        return False

    gpus = [Device(f"cuda:{i}", "GPU", 2**34) for i in range(2)]
    monkeypatch.setattr(composition, "accelerators", lambda: gpus)
    monkeypatch.setattr(engines, "load_dia", load)
    monkeypatch.setattr(engines, "_needs_own_process", never)
    return devices


async def configured(settings: Settings, **changes: Any) -> dict[str, Any]:
    """Send `changes` with PUT /config to one server, and return the configuration of the next."""
    async with AsyncTestClient(create_app(settings)) as client:
        assert (await client.put("/config", json=changes)).status_code == 200
    async with AsyncTestClient(create_app(settings)) as client:
        found: dict[str, Any] = (await client.get("/config")).json()
        assert found["worker_count"] == (await client.get("/health")).json()["worker_count"]
        assert found["restart_required"] == []
        return found


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 2),
        ({"worker_count": 0}, 2),
        ({"worker_count": 1}, 1),
        ({"worker_count": 64}, 2),
        ({"gpu_mode": "single", "worker_count": 2}, 1),
    ],
)
async def test_the_configuration_says_how_many_engines_run(
    settings: Settings, loaded: Loaded, changes: dict[str, Any], count: int
) -> None:
    dia = msgspec.structs.replace(settings, engine="dia")

    config = await configured(dia, **changes)

    assert config["worker_count"] == count
    assert set(loaded[-count:]) == {f"cuda:{i}" for i in range(count)}


async def test_a_named_device_runs_the_only_engine(settings: Settings, loaded: Loaded) -> None:
    dia = msgspec.structs.replace(settings, engine="dia", device="cuda:1")

    config = await configured(dia, worker_count=2, gpu_mode="multi")

    assert (config["worker_count"], config["gpu_mode"]) == (1, "single")
    assert set(loaded) == {"cuda:1"}


async def test_the_preview_is_one_engine_however_many_gpus(settings: Settings, loaded: Loaded) -> None:
    assert (await configured(settings, worker_count=2))["worker_count"] == 1
    assert not loaded
