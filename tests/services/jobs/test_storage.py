"""Jobs whose results are in an object storage."""

import asyncio
from typing import Any

import msgspec
import pytest

from dia_server.services.jobs.outputs import StoredOutputs
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.job_client import Client, change, job, serving, submit, wait_until_finished
from tests.storage import BOTH_STORAGES, ON_FILE, ON_S3, S3, Objects
from tests.tones import Gate, ToneModel
from tests.waiting import until

TIMING = Timing(job_retry_s=0.01)


@pytest.fixture
def conf(settings: Settings, storage_url: str) -> Settings:
    return msgspec.structs.replace(settings, storage=storage_url)


@pytest.fixture
def failed_writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the results that could not be written; one of them may occur many times."""
    failed: list[str] = []
    original = StoredOutputs.write

    async def write(self: StoredOutputs, name: str, content: bytes) -> None:
        try:
            await original(self, name, content)
        except Exception:
            failed.append(name)
            raise

    monkeypatch.setattr(StoredOutputs, "write", write)
    return failed


async def result(client: Client, job_id: str) -> bytes:
    answer = await client.get(f"/jobs/{job_id}/result")
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    return answer.content


@BOTH_STORAGES
async def test_a_job_is_completed_once_wherever_its_server_was_killed(conf: Settings) -> None:
    """Each job is left as the server leaves it that is killed after this step (see jobs/worker.py)."""
    steps = ("claim", "record_result", "write", "complete")
    objects = Objects(conf.storage)
    async with serving(conf, ToneModel()) as client:
        jobs = {step: await submit(client, text=f"After {step}.") for step in steps}
        for job_id in jobs.values():
            assert (await wait_until_finished(client, job_id))["status"] == "completed"
        audio = {step: await result(client, job_id) for step, job_id in jobs.items()}
    for step in steps[:3]:
        file = "NULL" if step == "claim" else "file"
        values = f"status = 'processing', finished_at = NULL, file = {file}"
        change(conf, f"UPDATE jobs SET {values} WHERE job_id = '{jobs[step]}'")
    for step in steps[:2]:
        objects.remove(f"outputs/{jobs[step]}.wav")
    for step in steps[2:]:
        audio[step] = f"written before the kill after {step}".encode()
        objects.write(f"outputs/{jobs[step]}.wav", audio[step])
    objects.write("outputs/not a result.wav", b"of the operator")

    model = ToneModel()
    async with serving(conf, model) as client:
        for job_id in jobs.values():
            assert (await wait_until_finished(client, job_id))["status"] == "completed"
        assert {step: await result(client, job_id) for step, job_id in jobs.items()} == audio
    assert len(model.seen) == 2
    stored = {f"{job_id}.wav" for job_id in jobs.values()} | {"not a result.wav"}
    assert objects.versions("outputs").keys() == stored


@ON_S3
async def test_a_deleted_job_and_its_result_are_gone(conf: Settings) -> None:
    async with serving(conf, ToneModel()) as client:
        job_id = await submit(client)
        await wait_until_finished(client, job_id)
        assert (await client.delete(f"/jobs/{job_id}")).status_code == 200
    assert Objects(conf.storage).versions("outputs") == {}
    assert not conf.audio_outputs.exists()


@ON_FILE
async def test_a_completed_job_without_its_result_fails(conf: Settings) -> None:
    async with serving(conf, ToneModel(), timing=Timing(retention_interval_s=0.01)) as client:
        job_id = await submit(client)
        await wait_until_finished(client, job_id)
        Objects(conf.storage).remove(f"outputs/{job_id}.wav")
        await until(lambda: fails(client, job_id))


async def fails(client: Client, job_id: str) -> bool:
    return bool((await job(client, job_id))["status"] == "failed")


@ON_S3
async def test_saved_outputs_are_in_the_storage(conf: Settings) -> None:
    async with serving(msgspec.structs.replace(conf, save_outputs=True), ToneModel()) as client:
        spoken = await client.post("/generate", json={"text": "Hello.", "voice_id": "aria"})
        await until(lambda: listed(client))
        (saved,) = (await client.get("/jobs")).json()["jobs"]
        assert await result(client, saved["job_id"]) == spoken.content


async def listed(client: Client) -> Any:
    return (await client.get("/jobs")).json()["jobs"]


@ON_S3
async def test_a_finished_job_waits_for_the_storage(conf: Settings, s3: S3, failed_writes: list[str]) -> None:
    gate = Gate()
    model = ToneModel(before_step=gate)
    async with serving(conf, model, timing=TIMING) as client:
        kept, cancelled = [await submit(client) for _ in range(2)]
        await asyncio.to_thread(gate.entered.wait, 5)
        s3.stop()
        try:
            gate.open()
            await until(lambda: len(set(failed_writes)) == 2)
            answer = await client.delete(f"/jobs/{cancelled}")
            assert answer.json()["message"], answer.text
            assert (await job(client, kept))["status"] == "processing"
            assert (await job(client, cancelled))["status"] == "cancelled"
        finally:
            s3.start()
        assert (await wait_until_finished(client, kept))["status"] == "completed"
        s3.stop()
        try:
            answer = await client.get(f"/jobs/{kept}/result")
            assert (answer.status_code, answer.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE")
        finally:
            s3.start()
        assert await result(client, kept)
    assert len(model.seen) == 2
    assert Objects(conf.storage).versions("outputs").keys() == {f"{kept}.wav"}


@ON_S3
async def test_a_job_that_waits_for_the_storage_survives_a_stop(
    conf: Settings, s3: S3, failed_writes: list[str]
) -> None:
    gate = Gate()
    async with serving(
        msgspec.structs.replace(conf, shutdown_timeout=0), ToneModel(before_step=gate), timing=TIMING
    ) as client:
        job_id = await submit(client)
        await asyncio.to_thread(gate.entered.wait, 5)
        s3.stop()
        gate.open()
        await until(lambda: failed_writes)
    s3.start()
    async with serving(conf, ToneModel()) as client:
        assert (await wait_until_finished(client, job_id))["status"] == "completed"
