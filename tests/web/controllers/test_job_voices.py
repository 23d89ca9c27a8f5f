"""A job uses the voices that it was submitted with, or fails with the cause."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from dia_server.settings import Settings
from tests.job_client import Client, serving, wait_until_finished
from tests.recordings import wav_file
from tests.tones import Gate, ToneModel

DIALOGUE = {"text": "[S1] Hi. [S2] Hello.", "voice_id": "anna", "voice_id_2": "ben", "max_tokens": 100}


async def upload(client: Client, name: str, transcript: str, pitch: float) -> None:
    answer = await client.post(
        "/audio_prompts/upload",
        data={"prompt_id": name, "transcript": transcript},
        files={"audio_file": ("sample.wav", wav_file(1.0, pitch=pitch))},
    )
    assert answer.status_code == 200, answer.text


async def save(client: Client, voice_id: str, prompt: str | None) -> None:
    answer = await client.post("/voice_mappings", json={"voice_id": voice_id, "audio_prompt": prompt})
    assert answer.status_code == 200, answer.text


@asynccontextmanager
async def waiting_job(settings: Settings) -> AsyncIterator[tuple[Client, ToneModel, Gate, str]]:
    """Yield a dialogue job that waits for the only slot; another job holds it until the gate opens."""
    gate = Gate()
    model = ToneModel(slots=1, before_step=gate)
    settings = msgspec.structs.replace(settings, voice_anchors="off")
    async with serving(settings, model, engine="dia") as client:
        await upload(client, "anna", "I am Anna.", 150)
        await upload(client, "ben", "I am Ben.", 100)
        await save(client, "anna", "anna")
        await save(client, "ben", "ben")
        await client.post("/generate?async_mode=true", json={"text": "I was first.", "max_tokens": 100})
        await asyncio.to_thread(gate.entered.wait, 5)
        job_id = (await client.post("/generate?async_mode=true", json=DIALOGUE)).json()["job_id"]
        yield client, model, gate, job_id


async def test_a_waiting_job_keeps_its_voices_when_mappings_change(settings: Settings) -> None:
    async with waiting_job(settings) as (client, model, gate, job_id):
        await save(client, "anna", None)
        await client.delete("/voice_mappings/ben")
        gate.open()

        assert (await wait_until_finished(client, job_id))["status"] == "completed"
        prompt = model.seen[1].prompt
        assert model.seen[1].voice == "anna+ben"
        assert prompt is not None
        assert prompt.transcript == "[S1] I am Anna. [S2] I am Ben."


@pytest.mark.parametrize("name", ["anna", "ben"])
async def test_a_recording_replaced_while_the_job_waits_fails_the_job_with_the_cause(
    settings: Settings, name: str
) -> None:
    async with waiting_job(settings) as (client, _, gate, job_id):
        await upload(client, name, "I am somebody else.", 200)
        gate.open()

        failed = await wait_until_finished(client, job_id)
        assert failed["status"] == "failed"
        assert failed["error"].startswith(f"The recording of voice '{name}', audio prompt '{name}', has been")
