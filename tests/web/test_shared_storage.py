"""Two servers with a data folder each: one PostgreSQL database and one object storage."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dia_server.errors import StorageUnavailable
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.recordings import StoredRecordings
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.cloning import CloningModel
from tests.job_client import Client, serving, submit, wait_until_finished
from tests.postgres import ON_POSTGRES
from tests.recordings import wav_file
from tests.storage import ON_S3, S3
from tests.tones import Gate
from tests.waiting import until

pytestmark = [ON_POSTGRES, ON_S3]

SPEECH = {"text": "Hello there, it is me.", "voice_id": "anna", "seed": 7}


@pytest.fixture
def confs(settings: Settings, tmp_path: Path, database_url: str, storage_url: str) -> list[Settings]:
    """Settings of the two servers."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    common = msgspec.structs.replace(
        settings, database_url=database_url, storage=storage_url, voice_anchors="on-demand"
    )
    return [msgspec.structs.replace(common, data_dir=str(folder)) for folder in folders]


def running(conf: Settings, before_step: Callable[[], object] = lambda: None) -> Any:
    model = CloningModel(slots=1, before_step=before_step)
    return serving(conf, model, engine="dia", timing=Timing(job_retry_s=0.01))


async def upload(client: Client) -> None:
    uploaded = await client.post(
        "/audio_prompts/upload",
        data={"prompt_id": "anna", "transcript": "I am Anna."},
        files={"audio_file": ("sample.wav", wav_file(1.0))},
    )
    assert uploaded.status_code == 200, uploaded.text
    saved = await client.post("/voice_mappings", json={"voice_id": "anna", "audio_prompt": "anna"})
    assert saved.status_code == 200, saved.text


async def knows(client: Client, path: str, text: str) -> Any:
    return text in (await client.get(path)).text


async def test_a_server_has_the_voices_and_results_of_the_other(confs: list[Settings]) -> None:
    async with running(confs[0]) as first, running(confs[1]) as second:
        await check_voices(first, second)
        job_id = await submit(first)
        await wait_until_finished(second, job_id)
        results = [await client.get(f"/jobs/{job_id}/result") for client in (first, second)]
        assert {result.status_code for result in results} == {200}
        assert results[0].content == results[1].content


async def check_voices(first: Client, second: Client) -> None:
    await upload(first)
    spoken = await first.post("/generate", json=SPEECH)
    plain = await first.post("/generate", json=SPEECH | {"voice_id": "aria"})
    assert (spoken.status_code, plain.status_code) == (200, 200)
    await until(lambda: knows(second, "/voice_mappings", "anna"))
    await until(lambda: knows(second, "/audio_prompts", "anna"))

    assert (await second.post("/generate", json=SPEECH)).content == spoken.content
    # the anchor of `aria`, which the first server has made
    await until(lambda: knows(second, "/voices", '"anchor":{'))
    assert (await second.post("/generate", json=SPEECH | {"voice_id": "aria"})).content == plain.content
    recording = await second.get("/audio_prompts/anna/audio")
    assert recording.content == (await first.get("/audio_prompts/anna/audio")).content
    discovered = (await second.post("/audio_prompts/discover")).json()
    assert (discovered["total_prompts"], discovered["skipped"]) == (1, [])


async def test_while_the_storage_is_away_requests_fail_and_queued_jobs_wait(
    confs: list[Settings], s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = []
    read = StoredRecordings.read

    async def read_or_fail(self: StoredRecordings, prompt: Prompt) -> bytes:
        try:
            return await read(self, prompt)
        except StorageUnavailable:
            failed.append(prompt.prompt_id)
            raise

    gate = Gate()
    async with running(confs[0], gate) as first:
        await upload(first)
        running_job, queued_job = await submit(first), await submit(first, **SPEECH)
        await asyncio.to_thread(gate.entered.wait, 5)
        monkeypatch.setattr(StoredRecordings, "read", read_or_fail)
        s3.stop()
        try:
            async with running(confs[1]) as second:
                await until(lambda: len(failed) > 1)
                now = await second.post("/generate", json=SPEECH)
                assert (now.status_code, now.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE")
                assert "retry-after" in now.headers
                s3.start()
                assert (await wait_until_finished(second, queued_job))["status"] == "completed"
                gate.open()
                assert (await wait_until_finished(second, running_job))["status"] == "completed"
        finally:
            gate.open()
            s3.start()
