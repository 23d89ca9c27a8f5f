import io
import wave
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.audio.encode import MEDIA_TYPES
from dia_server.services.voices.service import Voice
from dia_server.settings import Settings
from tests.each import each
from tests.job_client import serving
from tests.tones import ToneModel

Client = AsyncTestClient[Litestar]


def seconds(file: bytes) -> float:
    with wave.open(io.BytesIO(file)) as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (1, 2, 44_100)
        return int(wav.getnframes()) / 44_100


async def test_generate_returns_a_wav_file_by_default(client: Client) -> None:
    answer = await client.post("/generate", json={"text": "Hello, world!"})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert 0.5 < seconds(answer.content) < 3


async def test_every_documented_parameter_is_accepted(client: Client) -> None:
    answer = await client.post(
        "/generate",
        json={
            "text": "Hello, world!",
            "voice_id": "aria",
            "response_format": "wav",
            "speed": 1.0,
            "role": "assistant",
            "temperature": 0.7,
            "cfg_scale": 3.0,
            "top_p": 0.9,
            "max_tokens": 2048,
            "use_torch_compile": True,
            "seed": 7,
        },
    )

    assert answer.status_code == 200
    assert answer.headers["x-seed"] == "7"


@each(
    ("fields", "voice"),
    [
        ({}, "aria"),
        ({"voice": None}, "aria"),
        ({"voice": "Atlas"}, "atlas"),
        ({"voice": "echo"}, "atlas"),
        ({"voice_id": "kai", "voice": "atlas"}, "kai"),
        ({"voice_id": "aria", "voice": "nobody"}, "aria"),
    ],
)
async def test_voice_is_an_alias_of_voice_id(client: Client, fields: dict[str, Any], voice: str) -> None:
    answer = await client.post("/generate", json={"text": "Hi", **fields})

    assert answer.status_code == 200
    assert answer.headers["x-seed"] == str(Voice(voice).seed)


async def test_a_field_of_the_wrong_type_is_named(client: Client) -> None:
    for field, value in (("voice_id", None), ("voice_id", 5), ("voice", {"id": "aria"})):
        answer = await client.post("/generate", json={"text": "Hi", field: value})
        assert (answer.status_code, answer.json()["param"]) == (422, field)


async def test_null_means_the_default(client: Client) -> None:
    fields = ("role", "temperature", "cfg_scale", "top_p", "max_tokens", "use_torch_compile", "seed")

    answer = await client.post("/generate", json={"text": "Hi", **dict.fromkeys(fields)})

    assert answer.status_code == 200

    fields = ("model", "voice", "response_format", "speed", "seed", "stream", "stream_format")
    same = await client.post("/v1/audio/speech", json={"input": "Hi", **dict.fromkeys(fields)})

    assert same.content == answer.content


@pytest.mark.parametrize("audio_format", MEDIA_TYPES)
@each(("path", "field"), [("/generate", "text"), ("/v1/audio/speech", "input")])
async def test_each_format_has_its_media_type(
    client: Client, path: str, field: str, audio_format: Any
) -> None:
    answer = await client.post(path, json={field: "Hi", "response_format": audio_format})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == MEDIA_TYPES[audio_format]


async def test_an_unknown_format_is_refused_with_the_choices(client: Client) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": "Hi", "response_format": "vorbis"})

    assert answer.status_code == 422
    assert "'vorbis'; it must be one of aac, flac, mp3, opus, pcm, wav" in answer.json()["detail"]
    assert answer.json()["error"]["param"] == "response_format"


async def test_speed_changes_the_length(client: Client) -> None:
    lengths = [
        seconds((await client.post("/generate", json={"text": "Good morning.", "speed": speed})).content)
        for speed in (0.25, 1.0, 4.0)
    ]

    assert lengths[0] == pytest.approx(4 * lengths[1], rel=0.01)
    assert lengths[2] == pytest.approx(lengths[1] / 4, rel=0.01)


async def test_the_role_selects_the_speaker_of_untagged_text(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        for text, role in [("Hi.", None), ("Hi.", "user"), ("Hi.", "assistant"), ("Hi.", "system")]:
            assert (await client.post("/generate", json={"text": text, "role": role})).status_code == 200
        await client.post("/generate", json={"text": "[S1] Hi.", "role": "assistant"})

    tags = [utterance.text.removesuffix(" Hi.") for utterance in model.seen]
    assert tags == ["[S1]", "[S1]", "[S2]", "[S2]", "[S1]"]
    assert {utterance.voice for utterance in model.seen} == {"aria"}


async def test_the_same_request_gives_the_same_audio(client: Client) -> None:
    first, second = [await client.post("/generate", json={"text": "Again."}) for _ in range(2)]

    assert first.content == second.content
    assert first.headers["x-seed"] == second.headers["x-seed"]


@each("voice", ["alloy", "echo", "fable", "onyx", "nova", "shimmer", " atlas", {"id": "luna"}])
async def test_openai_voice_names_and_names_with_spaces_are_accepted(client: Client, voice: object) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": "Hi", "voice": voice})

    assert answer.status_code == 200


async def test_unknown_fields_and_model_names_are_ignored(client: Client) -> None:
    body = {"input": "Hi", "model": "tts-1-hd", "instructions": "softly", "params": {"a": 1}}

    assert (await client.post("/v1/audio/speech", json=body)).status_code == 200


async def test_a_full_stop_is_accepted_as_text(client: Client) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": ".", "response_format": "mp3"})

    assert answer.status_code == 200
    assert answer.content


async def test_every_response_names_the_engine_and_the_request(client: Client) -> None:
    for answer in (
        await client.post("/generate", json={"text": "Hi"}, headers={"X-Request-ID": "my-own.id"}),
        await client.get("/nowhere", headers={"X-Request-ID": "my-own.id"}),
    ):
        assert answer.headers["x-engine"] == "preview"
        assert answer.headers["x-request-id"] == "my-own.id"
    forged = await client.get("/health", headers={"X-Request-ID": "a b\tc"})
    assert forged.headers["x-request-id"].isalnum()


async def test_the_longest_text_is_spoken(client: Client) -> None:
    text = ("word " * 820)[:4096]

    answer = await client.post("/generate", json={"text": text})

    assert seconds(answer.content) > 60
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["x-retries"] == "0"
