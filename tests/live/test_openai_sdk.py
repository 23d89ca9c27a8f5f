"""The official OpenAI SDK against a running server."""

import io
import wave
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI

from tests.live.server import Server


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="anything", max_retries=0)


def test_speech_is_wav_unless_the_caller_says_otherwise(client: OpenAI) -> None:
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello from the SDK.")

    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getnframes() > 20_000


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_every_format_of_openai_is_made(
    client: OpenAI, audio_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"], tmp_path: Path
) -> None:
    file = tmp_path / f"speech.{audio_format}"
    with client.audio.speech.with_streaming_response.create(
        model="dia", voice="nova", input="Hello.", response_format=audio_format, speed=1.5
    ) as answer:
        answer.stream_to_file(file)

    assert file.stat().st_size > 2000


def test_models_are_listed_and_found(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["dia"]
    assert client.models.retrieve("dia").owned_by == "nari-labs"


@pytest.mark.parametrize(
    ("wrong", "error", "param"),
    [
        ({"voice": "nobody"}, openai.NotFoundError, "voice"),
        ({"input": "x" * 4097}, openai.UnprocessableEntityError, "input"),
        ({"speed": 9.0}, openai.UnprocessableEntityError, "speed"),
    ],
)
def test_errors_arrive_as_openai_errors(
    client: OpenAI, wrong: dict[str, Any], error: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(error) as raised:
        client.audio.speech.create(**{"model": "dia", "voice": "aria", "input": "Hi", **wrong})

    assert raised.value.param == param
    assert raised.value.code
    assert len(raised.value.message) > 10


def test_a_limited_client_is_told_and_retries_by_itself(tmp_path: Path) -> None:
    with Server(tmp_path, rate_limit_generate=1, api_keys="secret") as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0)
        client.audio.speech.create(model="dia", voice="aria", input="Hi")
        with pytest.raises(openai.RateLimitError) as limited:
            client.audio.speech.create(model="dia", voice="aria", input="Hi")
        assert 1 <= int(limited.value.response.headers["retry-after"]) <= 60
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()
