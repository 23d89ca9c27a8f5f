"""Background tasks continue after unexpected errors."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dia_server.services.jobs.outputs import OutputsFolder
from dia_server.services.jobs.store import JobStore
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.job_client import HELLO, change, job, serving, submit, wait_until_finished
from tests.tones import Gate, ToneModel
from tests.waiting import until

TIMING = Timing(
    job_retry_s=0.01, job_progress_interval_s=0.01, recorder_retry_s=0.01, retention_interval_s=0.01
)
Once = Callable[[type[Any], str, Exception], list[str]]


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Once:
    """Return a function that makes a method raise an error at its first call, and lists such calls."""

    def once(owner: type[Any], name: str, error: Exception) -> list[str]:
        original = getattr(owner, name)
        raised: list[str] = []

        async def method(*arguments: Any, **named: Any) -> Any:
            if not raised:
                raised.append(name)
                raise error
            return await original(*arguments, **named)

        monkeypatch.setattr(owner, name, method)
        return raised

    return once


async def test_the_queue(settings: Settings, once: Once) -> None:
    raised = once(JobStore, "claim", RuntimeError("unforeseen"))
    async with serving(settings, ToneModel(), timing=TIMING) as client:
        assert (await wait_until_finished(client, await submit(client)))["status"] == "completed"
    assert raised


async def test_the_progress_writer(settings: Settings, once: Once) -> None:
    raised = once(JobStore, "save_progress", RuntimeError("unforeseen"))
    gate = Gate()
    model = ToneModel(before_step=gate)
    async with serving(settings, model, timing=TIMING) as client:
        await submit(client)
        await asyncio.to_thread(gate.entered.wait, 5)
        noted = once(JobStore, "save_progress", RuntimeError("unforeseen"))

        async def twice() -> bool:
            return bool(raised and noted)

        await until(twice)
        gate.open()


async def test_the_recorder(settings: Settings, once: Once) -> None:
    raised = once(JobStore, "count", RuntimeError("unforeseen"))
    async with serving(settings, ToneModel(), timing=TIMING) as client:
        for _ in range(2):
            await client.post("/generate", json=HELLO)

        async def counted() -> bool:
            return bool((await client.get("/stats")).json()["requests"]["total"])

        await until(counted)
    assert raised


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RuntimeError("unforeseen")])
async def test_retention(settings: Settings, once: Once, error: Exception) -> None:
    raised = once(OutputsFolder, "files", error)
    async with serving(settings, ToneModel(), timing=TIMING) as client:
        done = await wait_until_finished(client, await submit(client))
        (settings.audio_outputs / f"{done['job_id']}.wav").unlink()

        async def lost() -> bool:
            return bool((await job(client, done["job_id"]))["status"] == "failed")

        await until(lost)
    assert raised


async def test_a_job_whose_failure_cannot_be_stored_is_left_to_the_next_start(
    settings: Settings, once: Once
) -> None:
    raised = once(JobStore, "fail", RuntimeError("unforeseen"))
    luck = iter([RuntimeError("out of luck")])

    def sometimes() -> None:
        for error in luck:
            raise error

    async with serving(settings, ToneModel(before_step=sometimes), timing=TIMING) as client:
        unlucky = await submit(client)

        async def failed() -> bool:
            return bool(raised)

        await until(failed)
        assert (await wait_until_finished(client, await submit(client)))["status"] == "completed"
        assert (await job(client, unlucky))["status"] == "processing"

    async with serving(settings, ToneModel(), timing=TIMING) as client:
        assert (await wait_until_finished(client, unlucky))["status"] == "completed"


@pytest.mark.parametrize(
    "request_", ["{", "{}", '{"text": "Hi", "voice_id": "aria", "response_format": "8-track"}']
)
async def test_unreadable_jobs_fail_and_the_others_run(settings: Settings, request_: str) -> None:
    gate = Gate()
    async with serving(settings, ToneModel(slots=1, before_step=gate)) as client:
        jobs = [await submit(client) for _ in range(4)]
        await asyncio.to_thread(gate.entered.wait, 5)
        for unreadable in jobs[1:3]:
            change(settings, f"UPDATE jobs SET request = '{request_}' WHERE job_id = '{unreadable}'")
        gate.open()

        assert (await wait_until_finished(client, jobs[3]))["status"] == "completed"
        for unreadable in jobs[1:3]:
            details = await job(client, unreadable)
            assert (details["status"], details["voice_id"]) == ("failed", None)
            assert "cannot be read" in details["error"]
            assert (await client.get(f"/jobs/{unreadable}/result")).status_code == 409
            assert (await client.delete(f"/jobs/{unreadable}")).status_code == 200
        requests = (await client.get("/stats")).json()["requests"]
        assert (requests["successful"], requests["failed"]) == (2, 2)
