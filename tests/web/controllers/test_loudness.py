"""Voices with recordings of different loudness, spoken by a model that repeats its prompt."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest

from dia_server.audio import wav
from dia_server.audio.loudness import CEILING, TARGET, gain_db, measure
from dia_server.engine.types import EngineName, Recording, Samples, Utterance
from dia_server.settings import Settings
from dia_server.units import SAMPLE_RATE
from tests.job_client import Client, serving, submit, wait_until_finished
from tests.prompts import recording_of
from tests.rows import execute
from tests.scripted import CHUNK, Part, Script, ScriptedModel
from tests.scripted import speech as tone
from tests.speech_clips import load_clips

LOUD, QUIET = "it/ciao_mondo", "pt/pangrama"
"""Clips of real speech whose loudness differs by 11 LU once their peaks are equal."""


def repeat(utterance: Utterance) -> list[Part]:
    """Say what the voice's recordings say; a voice without recordings says a tone."""
    if utterance.prompt is None:
        return tone(1.0)
    said = [part.samples for part in utterance.prompt.parts if isinstance(part, Recording)]
    samples = np.concatenate(said)
    return list(np.split(samples, range(CHUNK, len(samples), CHUNK)))


@asynccontextmanager
async def voices(
    settings: Settings, script: Script = repeat, engine: EngineName = "dia", **changes: Any
) -> AsyncIterator[Client]:
    """Yield a client of a server with the voices `loud` and `quiet`; the guard is off unless changed."""
    settings = msgspec.structs.replace(settings, **({"guard_retries": 0} | changes))
    async with serving(settings, ScriptedModel(script), engine=engine) as client:
        for voice_id, key in (("loud", LOUD), ("quiet", QUIET)):
            clip = load_clips()[key]
            answer = await client.post(
                "/audio_prompts/upload",
                data={"prompt_id": voice_id, "transcript": clip.words},
                files={"audio_file": ("clip.wav", clip.path.read_bytes())},
            )
            assert answer.status_code == 200, answer.text
            body = {"voice_id": voice_id, "audio_prompt": voice_id}
            assert (await client.post("/voice_mappings", json=body)).status_code == 200
        yield client


def samples_of(file: bytes) -> Samples:
    return wav.samples(file[wav.HEADER_LENGTH :])


def loudness(file: bytes) -> float:
    measured = measure(samples_of(file), SAMPLE_RATE)
    assert measured is not None
    return measured


async def say(client: Client, voice_id: str, **fields: Any) -> bytes:
    answer = await client.post("/generate", json={"text": "Hello!", "voice_id": voice_id} | fields)
    assert answer.status_code == 200, answer.text
    return answer.content


async def say_openai(client: Client, voice_id: str, **fields: Any) -> bytes:
    body = {"input": "Hello!", "voice": voice_id, "response_format": "wav"} | fields
    return (await client.post("/v1/audio/speech", json=body)).content


async def say_as_job(client: Client, voice_id: str, **fields: Any) -> bytes:
    job_id = await submit(client, text="Hello!", voice_id=voice_id, **fields)
    assert (await wait_until_finished(client, job_id))["status"] == "completed"
    return (await client.get(f"/jobs/{job_id}/result")).content


async def test_quiet_and_loud_recordings_are_spoken_equally_loud_on_every_route(settings: Settings) -> None:
    async with voices(settings) as client:
        for voice_id in ("loud", "quiet"):
            whole = await say(client, voice_id)
            assert loudness(whole) == pytest.approx(TARGET, abs=0.5)
            assert np.abs(samples_of(whole)).max() <= CEILING

            streamed = await say(client, voice_id, stream=True)
            assert streamed[wav.HEADER_LENGTH :] == whole[wav.HEADER_LENGTH :]
            assert await say_openai(client, voice_id) == whole
            assert await say_as_job(client, voice_id) == whole


async def test_a_websocket_sends_what_its_job_keeps(settings: Settings) -> None:
    data = {"text": "Hello!", "voice_id": "loud", "stream": True}
    async with voices(settings) as client:
        with await client.websocket_connect("/ws/generate") as socket:
            socket.send_json({"type": "generate", "data": data})
            sent = b""
            while (message := socket.receive_json(timeout=5))["type"] != "complete":
                if message["type"] == "audio":
                    sent += socket.receive_bytes(timeout=5)
        kept = (await client.get(message["audio_url"])).content

        assert kept == await say(client, "loud")
        assert sent[wav.HEADER_LENGTH :] == kept[wav.HEADER_LENGTH :]


@pytest.mark.parametrize("speed", [0.5, 2.0])
async def test_speed_does_not_change_loudness_and_peak(settings: Settings, speed: float) -> None:
    async with voices(settings) as client:
        for voice_id in ("loud", "quiet"):
            file = await say(client, voice_id, speed=speed)
            assert loudness(file) == pytest.approx(TARGET, abs=1.0)
            assert np.abs(samples_of(file)).max() <= CEILING


async def test_a_request_may_keep_the_loudness_of_the_voice(settings: Settings) -> None:
    async with voices(settings) as client:
        loud, quiet = [await say(client, voice, normalize_loudness=False) for voice in ("loud", "quiet")]

        assert loudness(loud) - loudness(quiet) == pytest.approx(11, abs=1)
        assert np.abs(samples_of(loud)).max() > CEILING
        assert await say_openai(client, "loud", normalize_loudness=False) == loud
        assert await say_as_job(client, "loud", normalize_loudness=False) == loud
        assert await say(client, "loud", normalize_loudness=None) != loud


async def test_the_setting_applies_to_requests_that_do_not_choose(settings: Settings) -> None:
    async with voices(settings, normalize_loudness=False) as client:
        kept = await say(client, "loud", normalize_loudness=False)

        assert await say(client, "loud") == await say_as_job(client, "loud") == kept
        assert loudness(await say(client, "loud", normalize_loudness=True)) == pytest.approx(TARGET, abs=0.5)


async def test_a_job_keeps_the_setting_that_it_was_accepted_with(settings: Settings) -> None:
    async with voices(settings) as client:
        job_id = await submit(client, voice_id="loud")

        query = f"SELECT request FROM jobs WHERE job_id = '{job_id}'"
        ((stored,),) = execute(settings.sqlalchemy_url, query)
        assert json.loads(stored)["normalize_loudness"] is True


async def test_a_voice_without_recording_and_anchor_keeps_its_loudness(settings: Settings) -> None:
    async with voices(msgspec.structs.replace(settings, voice_anchors="off")) as client:
        assert await say(client, "aria") == await say(client, "aria", normalize_loudness=False)


async def test_the_preview_engine_keeps_the_loudness_of_its_voices(settings: Settings) -> None:
    async with voices(settings, engine="preview") as client:
        assert await say(client, "loud") == await say(client, "loud", normalize_loudness=False)


async def test_two_voices_are_spoken_with_one_gain(settings: Settings) -> None:
    dialogue = {"text": "[S1] Hello! [S2] Hi!", "voice_id_2": "quiet"}
    async with voices(settings) as client:
        both = samples_of(await say(client, "loud", **dialogue))
        kept = samples_of(await say(client, "loud", normalize_loudness=False, **dialogue))

        unlimited = (np.abs(both) < 0.7) & (np.abs(kept) > 0.1)
        ratio_db = 20 * np.log10(both[unlimited] / kept[unlimited])
        recordings = [
            (await client.get(f"/audio_prompts/{voice}/audio")).content for voice in ("loud", "quiet")
        ]
        gains = [gain_db(samples_of(recording), SAMPLE_RATE) for recording in recordings]
        np.testing.assert_allclose(ratio_db, np.mean(gains), atol=0.01)


async def test_each_segment_of_more_than_two_voices_has_the_gain_of_its_own(settings: Settings) -> None:
    text = "[voice:loud] One. [pause:2s] [voice:quiet] Two. [pause:2s] [voice:third] Three."
    async with voices(settings) as client:
        await client.post("/voice_mappings", json={"voice_id": "third", "audio_prompt": "quiet"})
        for fields in ({}, {"speed": 0.5}, {"speed": 2.0}):
            body = {"text": text, "timestamps": "segment"} | fields
            answer = (await client.post("/generate", json=body)).json()
            samples = samples_of(b64decode(answer["audio"]))

            assert [one["voice"] for one in answer["timestamps"]] == ["loud", "quiet", "third"]
            for one in answer["timestamps"]:
                start, end = (round(one[name] * SAMPLE_RATE) for name in ("start", "end"))
                assert measure(samples[start:end], SAMPLE_RATE) == pytest.approx(TARGET, abs=1.0)


async def test_the_guard_judges_the_audio_before_the_gain(settings: Settings) -> None:
    """At -6 dB no sample of the delivered audio is at full scale."""

    def clip(utterance: Utterance) -> list[Part]:
        assert utterance.prompt is not None
        said = repeat(utterance)
        distorted = np.sign(recording_of(utterance.prompt)[:CHUNK]).astype(np.float32)
        return [said[0], distorted, *said[2:]]

    async with voices(settings, clip, guard_retries=1) as client:
        answer = await client.post("/generate", json={"text": "Hello!", "voice_id": "loud"})

        assert "clipped" in answer.headers["x-faults"]
        assert np.abs(samples_of(answer.content)).max() < 0.9


async def test_the_field_is_a_boolean(settings: Settings) -> None:
    async with voices(settings) as client:
        answer = await client.post("/generate", json={"text": "Hello!", "normalize_loudness": "yes"})

        assert (answer.status_code, answer.json()["param"]) == (422, "normalize_loudness")
