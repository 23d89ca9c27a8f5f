import logging
from collections.abc import Iterator
from shutil import rmtree
from typing import Any

import msgspec
import pynvml as nvml  # type: ignore[import-untyped]
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.logs import OURS
from dia_server.settings import Settings
from tests.rows import execute
from tests.waiting import until

Client = AsyncTestClient[Litestar]


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """Restore the log level after each test."""
    log = logging.getLogger(OURS)
    before = log.level
    yield
    log.setLevel(before)


async def test_the_configuration_has_the_fields_of_the_reference(client: Client) -> None:
    assert (await client.get("/config")).json() == {
        "debug_mode": False,
        "save_outputs": False,
        "show_prompts": False,
        "output_retention_hours": 24,
        "auto_discover_prompts": True,
        "auto_transcribe": False,
        "whisper_model_size": "base",
        "gpu_mode": "auto",
        "worker_count": 1,
        "torch_compile_enabled": True,
        "restart_required": [],
        "stored": [],
        "overridden": {},
    }


async def test_a_change_lists_restart_fields_and_survives_a_restart(settings: Settings) -> None:
    changes = {
        "debug_mode": True,
        "save_outputs": True,
        "auto_transcribe": True,
        "whisper_model_size": "small",
    }
    async with AsyncTestClient(create_app(settings)) as client:
        before = (await client.get("/config")).json()
        after = (await client.put("/config", json=changes)).json()
        assert after == before | changes | {"stored": list(changes)}
        assert (await client.put("/config", json={})).json() == after
        assert (await client.put("/config", json=after)).json() == after
    async with AsyncTestClient(create_app(settings)) as client:
        assert (await client.get("/config")).json() == after


async def test_a_stored_value_that_overrides_a_variable_is_listed_and_can_be_deleted(
    settings: Settings,
) -> None:
    given = {"save_outputs", "log_level"}
    async with AsyncTestClient(create_app(settings, given=given)) as client:
        before = (await client.get("/config")).json()
        put = {"debug_mode": True, "save_outputs": True, "show_prompts": True}
        assert (await client.put("/config", json=put)).json()["overridden"] == {
            "debug_mode": "DIA_LOG_LEVEL",
            "save_outputs": "DIA_SAVE_OUTPUTS",
        }
    agreed = msgspec.structs.replace(settings, save_outputs=True)
    async with AsyncTestClient(create_app(agreed, given=given)) as client:
        now = (await client.get("/config")).json()
        assert now["stored"] == ["debug_mode", "save_outputs", "show_prompts"]
        assert now["overridden"] == {"debug_mode": "DIA_LOG_LEVEL"}
    async with AsyncTestClient(create_app(settings, given=given)) as client:
        for name in now["stored"]:
            answer = await client.delete(f"/config/{name}")
        assert answer.json() == before
        assert (await client.delete("/config/save_outputs")).json() == before
    async with AsyncTestClient(create_app(settings, given=given)) as client:
        assert (await client.get("/config")).json() == before


async def test_a_deleted_restart_field_returns_to_its_setting_after_a_restart(settings: Settings) -> None:
    async with AsyncTestClient(create_app(settings)) as client:
        await client.put("/config", json={"worker_count": 3, "gpu_mode": "single"})
        undone = (await client.delete("/config/worker_count")).json()
        assert (undone["worker_count"], undone["restart_required"]) == (1, ["gpu_mode"])
    async with AsyncTestClient(create_app(settings)) as client:
        undone = (await client.delete("/config/gpu_mode")).json()
        assert (undone["gpu_mode"], undone["restart_required"]) == ("auto", ["gpu_mode"])
    async with AsyncTestClient(create_app(settings)) as client:
        now = (await client.get("/config")).json()
        assert (now["gpu_mode"], now["stored"], now["restart_required"]) == ("auto", [], [])


async def test_only_known_fields_can_be_deleted(client: Client) -> None:
    answer = await client.delete("/config/save_output")

    assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")
    assert "debug_mode, save_outputs, show_prompts" in answer.json()["detail"]


async def test_invalid_values_are_refused_and_change_nothing(client: Client) -> None:
    before = (await client.get("/config")).json()
    for wrong in (
        {"debug_mode": "yes"},
        {"debug_mode": None},
        {"output_retention_hours": -1},
        {"output_retention_hours": 1.5},
        {"whisper_model_size": "huge"},
        {"gpu_mode": "some"},
        {"worker_count": 65, "debug_mode": True},
    ):
        answer = await client.put("/config", json=wrong)
        assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR"), wrong
        assert next(iter(wrong)) in answer.json()["detail"]
    assert (await client.get("/config")).json() == before


async def test_fields_that_need_a_restart_are_listed(client: Client) -> None:
    answer = await client.put("/config", json={"worker_count": 2, "gpu_mode": "single", "show_prompts": True})

    assert answer.json()["restart_required"] == ["gpu_mode", "worker_count"]


async def test_debug_mode_changes_the_log_level_both_ways(client: Client) -> None:
    log = logging.getLogger(OURS)
    before = log.level
    await client.put("/config", json={"debug_mode": True})
    assert log.level == logging.DEBUG
    await client.put("/config", json={"debug_mode": False})
    assert log.level == before


async def test_save_outputs_stores_the_audio_of_requests(settings: Settings, client: Client) -> None:
    await client.post("/generate", json={"text": "Not kept"})
    await client.put("/config", json={"save_outputs": True})
    made = await client.post("/generate", json={"text": "Kept", "response_format": "mp3"})

    async def kept() -> Any:
        return (await client.get("/jobs")).json()["jobs"]

    await until(kept)
    (job,) = await kept()
    assert (job["status"], job["text_preview"]) == ("completed", "Kept")
    assert (await client.get(f"/jobs/{job['job_id']}/result")).content == made.content
    assert [path.name for path in settings.audio_outputs.glob("[!.]*")] == [f"{job['job_id']}.mp3"]


async def test_a_request_succeeds_although_its_output_cannot_be_stored(
    settings: Settings, client: Client
) -> None:
    await client.put("/config", json={"save_outputs": True})
    rmtree(settings.audio_outputs)
    settings.audio_outputs.write_text("not a folder")

    assert (await client.post("/generate", json={"text": "Hello"})).status_code == 200

    async def counted() -> Any:
        return (await client.get("/stats")).json()["requests"]["total"]

    await until(counted)
    assert (await client.get("/jobs")).json() == {"jobs": []}


async def test_statistics_survive_a_restart(settings: Settings) -> None:
    async with AsyncTestClient(create_app(settings), raise_server_exceptions=False) as client:
        empty = (await client.get("/stats")).json()
        assert empty["requests"] == {"total": 0, "successful": 0, "failed": 0, "success_rate": 100.0}
        assert empty["performance"] == {
            "avg_generation_time": 0.0,
            "avg_tokens_per_second": 0.0,
            "total_audio_generated": "0s",
        }
        for _ in range(2):
            await client.post("/generate", json={"text": "Hello there. " * 10})
        await client.post("/v1/audio/speech", json={"input": "Hello there. " * 10, "speed": 2})
        await client.post(
            "/generate", json={"text": "Hello", "voice_id": "nobody"}
        )  # refused before it begins

    async with AsyncTestClient(create_app(settings)) as client:
        stats = (await client.get("/stats")).json()
    assert stats["requests"] == {"total": 3, "successful": 3, "failed": 0, "success_rate": 100.0}
    assert stats["performance"]["avg_tokens_per_second"] > 0
    assert stats["performance"]["total_audio_generated"].endswith("s")
    assert 0 <= stats["resources"]["cpu_usage"] <= 100
    assert 0 < stats["resources"]["memory_usage"] < 100


async def test_each_gpu_is_listed_with_null_for_values_its_driver_lacks(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVIDIA's driver is simulated, because a test machine may have none."""

    class Answer:
        gpu, used = 85, 4.2 * 2**30

    def hidden_for_the_second(device: int) -> Answer:
        if device == 1:
            raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
        return Answer()

    monkeypatch.setattr(nvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(nvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByIndex", lambda i: i)
    monkeypatch.setattr(nvml, "nvmlDeviceGetUtilizationRates", hidden_for_the_second)
    monkeypatch.setattr(nvml, "nvmlDeviceGetMemoryInfo", lambda _: Answer())

    found = (await client.get("/stats")).json()["resources"]
    assert (found["gpu_usage"], found["gpu_memory"]) == ([85.0, None], [4.2, 4.2])


async def test_values_sent_back_unchanged_are_not_stored(settings: Settings) -> None:
    async with AsyncTestClient(create_app(settings)) as client:
        told = (await client.get("/config")).json()
        await client.put("/config", json=told)
        await client.put("/config", json={"worker_count": 1, "gpu_mode": "single"})

    kept = dict(execute(settings.sqlalchemy_url, "SELECT name, value FROM config"))
    assert "worker_count" not in kept
    assert kept["gpu_mode"] == '"single"'


async def test_client_errors_are_not_counted_as_failures(client: Client) -> None:
    await client.post("/voice_mappings", json={"voice_id": "gone", "audio_prompt": "missing"})
    for body in ({"text": "Hi", "voice_id": "gone"}, {"text": "a " + "[pause:10s] b " * 13}):
        assert (await client.post("/generate", json=body)).status_code == 422
        assert (await client.post("/generate", json={**body, "stream": True})).status_code == 422
    assert (await client.post("/generate", json={"text": "Hi"})).status_code == 200

    async def counted() -> bool:
        return bool((await client.get("/stats")).json()["requests"]["total"])

    await until(counted)
    requests = (await client.get("/stats")).json()["requests"]
    assert (requests["total"], requests["failed"]) == (1, 0)


async def test_a_read_only_configuration_can_be_read_but_not_changed(settings: Settings) -> None:
    conf = msgspec.structs.replace(settings, config_writable=False, api_keys=("secret",))
    key = {"authorization": "Bearer secret"}
    async with AsyncTestClient(create_app(conf)) as client:
        refused = await client.put("/config", json={"debug_mode": True}, headers=key)
        unknown = await client.put("/config", json={"debug_mode": True})
        read = await client.get("/config", headers=key)
        voice = await client.post("/voice_mappings", json={"voice_id": "narrator"}, headers=key)

    assert (refused.status_code, refused.json()["error_code"]) == (403, "FORBIDDEN")
    assert "DIA_CONFIG_WRITABLE" in refused.json()["detail"]
    assert unknown.status_code == 401
    assert (read.status_code, read.json()["debug_mode"]) == (200, False)
    assert voice.status_code == 200
