import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from shutil import rmtree
from typing import Any

import pytest
from litestar.testing import TestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.job_client import HELLO, Client, change, connect, job, names, serving, submit, wait_until_finished
from tests.rows import execute
from tests.tones import Gate, ToneModel, loader


async def test_a_job_matches_the_reference(settings: Settings) -> None:
    async with serving(settings, ToneModel()) as client:
        accepted = await client.post("/generate?async_mode=true", json=HELLO)
        job_id = accepted.json()["job_id"]
        assert accepted.json() == {
            "job_id": job_id,
            "status": "pending",
            "message": "Job queued for processing",
        }

        done = await wait_until_finished(client, job_id)
        assert done["status"] == "completed"
        assert done["result_url"] == f"/jobs/{job_id}/result"
        assert done["created_at"] <= done["started_at"] <= done["completed_at"]
        assert (done["progress"], done["error"]) == (100, None)
        assert done["duration"] == 0.24

        result = await client.get(done["result_url"])
        assert result.headers["content-type"] == "audio/wav"
        assert int(result.headers["content-length"]) == len(result.content)
        assert result.content == (await client.post("/generate", json=HELLO)).content

        (line,) = (await client.get("/jobs")).json()["jobs"]
        only_alone = {"started_at", "completed_at", "result_url", "generation_time", "seed", "warnings"}
        assert line == {name: done[name] for name in done.keys() - only_alone} | {
            "text_preview": HELLO["text"]
        }


async def test_the_list_is_newest_first_filtered_and_limited(client: Client) -> None:
    jobs = [await submit(client, text=f"Number {i}") for i in range(5)]
    for job_id in jobs:
        await wait_until_finished(client, job_id)

    async def listed(query: str) -> list[str]:
        return [line["job_id"] for line in (await client.get(f"/jobs{query}")).json()["jobs"]]

    assert await listed("") == jobs[::-1]
    assert await listed("?limit=2") == jobs[:2:-1]
    assert await listed("?status=completed&limit=1") == jobs[-1:]
    assert await listed("?status=pending") == []
    assert (await client.get("/jobs?status=done")).status_code == 422
    assert (await client.get("/jobs?limit=0")).status_code == 422


async def test_invalid_jobs_are_refused_at_submission(client: Client) -> None:
    for fields, status, code in (
        ({"voice_id": "nobody"}, 404, "INVALID_VOICE_ID"),
        ({"text": " * "}, 422, "VALIDATION_ERROR"),
        ({"text": "x" * 4097}, 422, "TEXT_TOO_LONG"),
    ):
        answer = await client.post("/generate?async_mode=true", json=HELLO | fields)
        assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert (await client.get("/jobs")).json() == {"jobs": []}


async def test_unknown_jobs_are_404(client: Client) -> None:
    for answer in (
        await client.get("/jobs/12345"),
        await client.get("/jobs/12345/result"),
        await client.delete("/jobs/12345"),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")


async def test_a_running_job_reports_progress_and_has_no_result(settings: Settings) -> None:
    gate = Gate()
    async with serving(settings, ToneModel(before_step=gate)) as client:
        job_id = await submit(client)
        await asyncio.to_thread(gate.entered.wait, 5)
        now = await job(client, job_id)
        assert now["status"] == "processing"
        (line,) = (await client.get("/jobs")).json()["jobs"]
        assert (line["progress"], line["duration"]) == (now["progress"], None)
        answer = await client.get(f"/jobs/{job_id}/result")
        assert (answer.status_code, answer.json()["error_code"]) == (409, "JOB_NOT_COMPLETE")
        gate.open()
        assert (await wait_until_finished(client, job_id))["progress"] == 100


async def test_delete_cancels_unfinished_jobs_and_removes_finished_ones(settings: Settings) -> None:
    gate = Gate()
    model = ToneModel(slots=1, before_step=gate)
    async with serving(settings, model) as client:
        running = await submit(client)
        await asyncio.to_thread(gate.entered.wait, 5)
        waiting = await submit(client)
        for job_id in (running, waiting):
            assert (await client.delete(f"/jobs/{job_id}")).json()["status"] == "cancelled"
            assert (await job(client, job_id))["status"] == "cancelled"
        gate.open()
        done = await submit(client, response_format="flac")
        assert (await wait_until_finished(client, done))["status"] == "completed"
        assert len(model.seen) == 2

        assert names(settings) == {f"{done}.flac"}
        for job_id in (running, waiting, done):
            assert (await client.delete(f"/jobs/{job_id}")).json()["status"] == "deleted"
        assert (await client.get("/jobs")).json() == {"jobs": []}
        assert names(settings) == set()


def test_requests_go_before_jobs_and_jobs_still_progress(settings: Settings) -> None:
    gate = Gate()
    model = ToneModel(slots=2, before_step=gate)
    app = create_app(settings, Engine("preview", loader(model), max_waiting=8))

    def wait_for(condition: Callable[[dict[str, Any]], bool], path: str) -> None:
        deadline = time.monotonic() + 10
        while not condition(client.get(path).json()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with TestClient(app) as client, ThreadPoolExecutor() as threads:
        wait_for(lambda health: health["model_loaded"], "/health")
        for i in range(4):
            client.post("/generate?async_mode=true", json={"text": f"Job {i}"})
        assert gate.entered.wait(5)
        requests = [threads.submit(client.post, "/generate", json={"text": f"Request {i}"}) for i in range(6)]
        wait_for(lambda health: health["active_jobs"] == 2 + 6, "/health")
        gate.open()
        assert {request.result().status_code for request in requests} == {200}
        wait_for(lambda listed: len(listed["jobs"]) == 4, "/jobs?status=completed")

    order = "".join("J" if "Job" in utterance.text else "r" for utterance in model.seen)
    # the first request gets the slot reserved for requests; jobs get every fifth slot that becomes free
    assert order == "JrrrrJrrJJ"


async def test_a_failed_job_reports_the_cause_and_the_next_job_completes(settings: Settings) -> None:
    luck = iter([RuntimeError("out of luck")])

    def sometimes() -> None:
        for error in luck:
            raise error

    async with serving(settings, ToneModel(before_step=sometimes)) as client:
        failed = await wait_until_finished(client, await submit(client))
        assert (failed["status"], failed["error"]) == ("failed", "Generation failed: out of luck")
        answer = await client.get(f"/jobs/{failed['job_id']}/result")
        assert answer.status_code == 409
        assert "out of luck" in answer.json()["detail"]

        assert (await wait_until_finished(client, await submit(client)))["status"] == "completed"
        requests = (await client.get("/stats")).json()["requests"]
        assert requests == {"total": 2, "successful": 1, "failed": 1, "success_rate": 50.0}


async def test_a_job_keeps_the_voice_it_was_accepted_with(settings: Settings) -> None:
    gate = Gate()
    model = ToneModel(slots=1, before_step=gate)
    async with serving(settings, model) as client:
        await client.post("/voice_mappings", json={"voice_id": "mine", "primary_speaker": "S2"})
        await submit(client)
        job_id = await submit(client, voice_id="mine")
        await client.delete("/voice_mappings/mine")
        gate.open()
        assert (await wait_until_finished(client, job_id))["status"] == "completed"
    assert model.seen[-1].text.startswith("[S2]")


async def test_jobs_survive_a_shutdown(settings: Settings) -> None:
    gate = Gate()
    async with serving(settings, ToneModel(slots=2, before_step=gate)) as client:
        jobs = [await submit(client, text=f"Number {i}") for i in range(5)]
        await asyncio.to_thread(gate.entered.wait, 5)
        threading.Timer(0.2, gate.open).start()  # the server waits for the running step

    assert attempts(settings) == {0}
    async with serving(settings, ToneModel()) as client:
        for job_id in jobs:
            assert (await wait_until_finished(client, job_id))["status"] == "completed"
        assert (await client.get("/stats")).json()["requests"]["total"] == 5
    assert attempts(settings) == {1}


async def test_a_file_completed_before_a_crash_is_not_generated_again(settings: Settings) -> None:
    """Simulates SIGKILL between the last two steps of storing a result."""
    async with serving(settings, ToneModel()) as client:
        job_id = (await wait_until_finished(client, await submit(client)))["job_id"]
    change(settings, "UPDATE jobs SET status = 'processing', finished_at = NULL")
    change(settings, "UPDATE totals SET successful = 0")

    model = ToneModel()
    async with serving(settings, model) as client:
        assert (await wait_until_finished(client, job_id))["status"] == "completed"
        assert (await client.get(f"/jobs/{job_id}/result")).status_code == 200
        assert (await client.get("/stats")).json()["requests"]["total"] == 1
    assert not model.seen


async def test_a_job_that_crashes_the_server_repeatedly_fails(settings: Settings) -> None:
    async with serving(settings, ToneModel()) as client:
        job_id = (await wait_until_finished(client, await submit(client)))["job_id"]
    change(settings, "UPDATE jobs SET status = 'processing', file = NULL, attempts = 25")

    async with serving(settings, ToneModel()) as client:
        given_up = await job(client, job_id)
        assert given_up["status"] == "failed"
        assert "25 times" in given_up["error"]


@pytest.mark.sqlite
async def test_a_locked_database_is_reported_and_recovered_from(settings: Settings) -> None:
    timing = Timing(busy_timeout_ms=50, job_retry_s=0.05)
    gate = Gate()
    async with serving(settings, ToneModel(before_step=gate), timing=timing) as client:
        job_id = await submit(client)
        await asyncio.to_thread(gate.entered.wait, 5)
        other = connect(settings)
        other.execute("BEGIN IMMEDIATE")
        gate.open()

        refused = await client.post("/generate?async_mode=true", json=HELLO)
        assert (refused.status_code, refused.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE")
        assert "locked" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.post("/generate", json=HELLO)).status_code == 200
        assert (await job(client, job_id))["status"] == "processing"
        assert (await client.get("/jobs")).status_code == 200

        other.execute("ROLLBACK")
        other.close()
        assert (await wait_until_finished(client, job_id))["status"] == "completed"
        await wait_until_finished(client, await submit(client))


async def test_an_unwritable_outputs_folder_fails_jobs_until_it_is_writable(settings: Settings) -> None:
    blocked = settings.audio_outputs
    async with serving(settings, ToneModel()) as client:
        rmtree(blocked)
        blocked.write_text("not a folder")
        failed = await wait_until_finished(client, await submit(client))
        assert failed["status"] == "failed"
        assert failed["error"].startswith("The audio could not be saved in audio_outputs/")

        blocked.unlink()
        assert (await wait_until_finished(client, await submit(client)))["status"] == "completed"


async def test_a_full_disk_fails_jobs_and_leaves_no_files(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    async with serving(settings, ToneModel()) as client:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            failed = await wait_until_finished(client, await submit(client))
        assert failed["error"] == "The audio could not be saved in audio_outputs/: No space left on device"
        assert names(settings) == set()

        assert (await wait_until_finished(client, await submit(client)))["status"] == "completed"


def attempts(settings: Settings) -> set[int]:
    return {count for (count,) in execute(settings.sqlalchemy_url, "SELECT attempts FROM jobs")}


async def test_an_unreadable_row_does_not_hide_other_jobs(settings: Settings) -> None:
    async with serving(settings, ToneModel()) as client:
        first, second = await submit(client), await submit(client)
        for job_id in (first, second):
            await wait_until_finished(client, job_id)
        change(settings, f"UPDATE jobs SET request = '{{\"text\": 1}}' WHERE job_id = '{first}'")

        voices = {line["job_id"]: line["voice_id"] for line in (await client.get("/jobs")).json()["jobs"]}

    assert voices == {first: None, second: "aria"}


async def test_a_result_has_the_headers_of_its_generation(settings: Settings) -> None:
    async with serving(settings, ToneModel()) as client:
        job_id = await submit(client, seed=7)
        await wait_until_finished(client, job_id)
        result = await client.get(f"/jobs/{job_id}/result")

    assert (result.headers["x-seed"], result.headers["x-retries"]) == ("7", "0")
    assert "x-faults" not in result.headers
