import base64
import io
import json
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.audio.encode import MEDIA_TYPES
from dia_server.settings import Settings
from tests.each import each
from tests.job_client import loaded
from tests.waiting import early_in_a_minute, until

Client = AsyncTestClient[Litestar]

TEXT = "[S1] One sentence is here. Another one follows! [S2] And a third, said by somebody else?"


def decoded(file: bytes, media_type: str) -> float:
    """Return the seconds of audio in a file."""
    if media_type.startswith("audio/pcm"):
        return len(file) / 2 / 24_000
    if file[:4] == b"RIFF":
        return (len(file) - 44) / 2 / 44_100
    with av.open(io.BytesIO(file), "r") as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@each("audio_format", MEDIA_TYPES)
async def test_a_stream_is_as_long_as_a_complete_response(client: Client, audio_format: str) -> None:
    body = {"text": TEXT, "response_format": audio_format}

    whole = await client.post("/generate", json=body)
    stream = await client.post("/generate", json=body | {"stream": True})

    assert stream.headers["content-type"] == whole.headers["content-type"]
    assert stream.headers["x-seed"] == whole.headers["x-seed"]
    assert "content-length" not in stream.headers
    lengths = [decoded(answer.content, answer.headers["content-type"]) for answer in (whole, stream)]
    assert lengths[0] == pytest.approx(lengths[1], abs=0.06)


async def test_a_streamed_wav_has_the_canonical_header_and_the_same_samples(client: Client) -> None:
    body = {"input": TEXT, "response_format": "wav"}

    whole = (await client.post("/v1/audio/speech", json=body)).content
    stream = (await client.post("/v1/audio/speech", json=body | {"stream": True})).content

    assert stream[:8] == b"RIFF\xff\xff\xff\xff"
    assert stream[36:44] == b"data\xff\xff\xff\xff"
    assert stream[44:] == whole[44:]


@pytest.mark.parametrize("audio_format", MEDIA_TYPES)
async def test_a_stored_stream_is_a_file_with_an_exact_header(client: Client, audio_format: str) -> None:
    """The header of the sent bytes cannot be exact, because it precedes the audio."""
    await client.put("/config", json={"save_outputs": True})
    body = {"text": TEXT, "response_format": audio_format, "speed": 1.5}
    await client.post("/generate", json=body | {"stream": True})

    async def kept() -> Any:
        return (await client.get("/jobs")).json()["jobs"]

    await until(kept)
    (job,) = await kept()
    result = (await client.get(f"/jobs/{job['job_id']}/result")).content
    assert result == (await client.post("/generate", json=body)).content


@pytest.mark.parametrize(("audio_format", "chunked"), [("wav", False), ("mp3", True), ("pcm", True)])
async def test_openai_clients_get_a_stream_for_all_but_wav(
    client: Client, audio_format: str, chunked: bool
) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": "Hi", "response_format": audio_format})

    assert ("content-length" not in answer.headers) == chunked


async def test_events_carry_the_file_and_end_with_the_usage(client: Client) -> None:
    body = {"input": TEXT, "response_format": "pcm"}
    plain = (await client.post("/v1/audio/speech", json=body)).content

    answer = await client.post("/v1/audio/speech", json=body | {"stream_format": "sse"})

    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == plain
    usage = events[-1]["usage"]
    assert events[-1]["type"] == "speech.audio.done"
    assert usage["input_tokens"] == len(TEXT)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_a_failure_before_the_first_audio_is_an_error_response(client: Client) -> None:
    for body in ({"voice": "nobody"}, {"input": "x" * 4097}, {"input": "[pause:10s] a " * 20}):
        answer = await client.post("/v1/audio/speech", json={"input": "Hi", "stream": True, **body})
        assert answer.status_code in {404, 422}
        assert answer.json()["error"]["message"]


async def test_pauses_are_silence_of_the_requested_length(client: Client) -> None:
    async def seconds(text: str) -> float:
        return decoded((await client.post("/generate", json={"text": text})).content, "")

    apart = await seconds("Ready. [pause:2s] Go.")

    assert apart == pytest.approx(await seconds("Ready.") + 2 + await seconds("Go."), abs=0.1)


async def test_a_dialogue_uses_two_voices(client: Client) -> None:
    async def say(path: str, body: dict[str, str]) -> bytes:
        answer = await client.post(path, json=body)
        assert answer.status_code == 200
        return answer.content

    cast = await say("/generate", {"text": "[S1] Hi. [S2] Hello.", "voice_id": "aria", "voice_id_2": "atlas"})
    openai = await say("/v1/audio/speech", {"input": "[S1] Hi. [S2] Hello.", "voice": "aria+atlas"})
    partner = await say("/generate", {"text": "[S1] Hi. [S2] Hello.", "voice_id": "aria"})
    others = await say("/generate", {"text": "[S1] Hi. [S2] Hello.", "voice_id": "kai"})
    other = await say("/generate", {"text": "[S1] Hello.", "voice_id": "atlas"})

    assert cast == openai == partner != others
    seconds = [np.frombuffer(file[44:], "<i2") for file in (cast, other)]
    assert len(seconds[0]) > len(seconds[1])
    unknown = await client.post("/generate", json={"text": "Hi", "voice_id_2": "nobody"})
    assert unknown.json()["error_code"] == "INVALID_VOICE_ID"


async def test_a_plan_lists_the_segments_of_the_text(client: Client) -> None:
    text = "This is a sentence of a long text. " * 40

    plan = (await client.post("/plan", json={"text": text})).json()

    segments = plan["utterances"]
    assert len(segments) > 3
    assert " ".join(segment["text"].removeprefix("[S1] ") for segment in segments).split() == text.split()
    assert plan["estimated_s"] == pytest.approx(
        sum(segment["estimated_s"] + segment["pause_before_s"] for segment in segments), abs=0.01
    )


async def test_a_plan_scales_durations_by_the_requested_speed(client: Client) -> None:
    body = {"text": "One sentence is here. " * 40 + "[pause:2s] The end."}

    normal, fast = [(await client.post("/plan", json=body | {"speed": speed})).json() for speed in (1, 2)]

    assert fast["estimated_s"] - 2 == pytest.approx((normal["estimated_s"] - 2) / 2)
    for before, after in zip(normal["utterances"], fast["utterances"], strict=True):
        assert after["estimated_s"] == pytest.approx(before["estimated_s"] / 2)
    assert [segment["pause_before_s"] for segment in fast["utterances"]][-2:] == [0.15, 2.0]


@pytest.mark.parametrize("speed", [0.5, 1.0, 3.0])
async def test_requested_pauses_keep_their_length_at_any_speed(client: Client, speed: float) -> None:
    """Measures the silence in the audio."""
    body = {"text": "Ready. [pause:1.5s] Go.", "speed": speed}
    samples = np.frombuffer((await client.post("/generate", json=body)).content[44:], "<i2")

    sounds = np.flatnonzero(np.abs(samples) > 200)
    assert np.diff(sounds).max() / 44_100 == pytest.approx(1.5, abs=0.2)


async def test_plans_have_a_rate_limit_of_their_own(settings: Settings) -> None:
    limited = msgspec.structs.replace(settings, rate_limit_generate=1, rate_limit_jobs=2)
    async with AsyncTestClient(create_app(limited)) as client:
        await until(lambda: loaded(client))
        early_in_a_minute()
        answers = [await client.post("/plan", json={"text": "Hi"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert (await client.get("/jobs")).status_code == 200
        assert (await client.post("/generate", json={"text": "Hi"})).status_code == 200
