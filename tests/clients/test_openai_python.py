"""The official OpenAI SDK for Python against a running server."""

import base64
import io
import wave
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import DefaultHttpxClient, OpenAI

from tests.clients.audio import seconds
from tests.live.clients import active, ask
from tests.live.server import Server
from tests.recordings import wav_file
from tests.waiting import early_in_a_minute, wait_until


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="anything", max_retries=0)


def test_speech_is_wav_by_default(client: OpenAI) -> None:
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello from the SDK.")

    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getnframes() > 20_000


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_every_format_of_openai_is_supported(
    client: OpenAI, audio_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"], tmp_path: Path
) -> None:
    file = tmp_path / f"speech.{audio_format}"
    with client.audio.speech.with_streaming_response.create(
        model="dia", voice="nova", input="Hello.", response_format=audio_format, speed=1.5
    ) as answer:
        answer.stream_to_file(file)

    assert 0.2 < seconds(file.read_bytes(), audio_format) < 2


def test_a_pronunciation_is_what_is_said(client: OpenAI, server: Server) -> None:
    def said(text: str) -> bytes:
        speech = client.audio.speech.create(model="dia", voice="aria", input=text)
        content: bytes = speech.content
        return content

    server.put("/pronunciations", json={"word": "ngx", "respelling": "engine ex"}).raise_for_status()
    respelled = said("Restart NGX now.")
    server.delete("/pronunciations", params={"word": "ngx"}).raise_for_status()

    assert respelled == said("Restart Engine ex now.") != said("Restart NGX now.")


def test_models_are_listed_and_found(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["dia"]
    assert client.models.retrieve("dia").owned_by == "nari-labs"


def test_a_voice_is_made_of_a_recording_used_and_deleted(client: OpenAI, server: Server) -> None:
    sample = ("sample.wav", wav_file(1.0))
    voice = client.audio.voices.create(
        name="Anna Müller", audio_sample=sample, consent="cons_1", extra_body={"transcript": "I am Anna."}
    )
    assert (voice.id, voice.name, voice.object, voice.type) == (
        "anna-muller",
        "Anna Müller",
        "audio.voice",
        "audio_sample",
    )
    assert server.get("/audio_prompts/metadata/anna-muller").json()["transcript"] == "I am Anna."
    assert client.audio.speech.create(model="dia", voice=voice.id, input="Hello.").content[:4] == b"RIFF"
    with pytest.raises(openai.ConflictError) as conflict:
        client.audio.voices.create(name="Anna Müller", audio_sample=sample, consent="cons_1")
    assert (conflict.value.code, conflict.value.param) == ("conflict", "name")

    deleted = client.audio.voices.delete(voice.id)
    assert (deleted.id, deleted.deleted, deleted.object) == ("anna-muller", True, "audio.voice.deleted")
    with pytest.raises(openai.NotFoundError):
        client.audio.voices.delete(voice.id)
    assert server.get("/audio_prompts").json() == {"audio_prompts": []}


def test_a_reference_is_sent_as_an_extra_field(client: OpenAI) -> None:
    audio = base64.b64encode(wav_file(5.0)).decode()
    large = base64.b64encode(wav_file(55, rate=88_200)).decode()
    assert len(large) > 12_000_000
    for sent in (audio, f"data:audio/wav;base64,{audio}", large):
        body = {"ref_audio": sent, "ref_text": "These are my words."}
        answer = client.audio.speech.create(model="dia", voice="aria", input="Hello.", extra_body=body)
        assert answer.content[:4] == b"RIFF"

    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.audio.speech.create(
            model="dia", voice="aria", input="Hello.", extra_body={"ref_audio": "https://example.org/me.wav"}
        )
    assert (refused.value.code, refused.value.param) == ("validation_error", "ref_audio")


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


def test_a_rate_limited_client_gets_retry_after(tmp_path: Path) -> None:
    with Server(tmp_path, rate_limit_generate=1, api_keys="secret") as server:
        early_in_a_minute(10)
        client = OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0)
        client.audio.speech.create(model="dia", voice="aria", input="Hi")
        with pytest.raises(openai.RateLimitError) as limited:
            client.audio.speech.create(model="dia", voice="aria", input="Hi")
        assert 1 <= int(limited.value.response.headers["retry-after"]) <= 60
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()


def test_the_client_retries_when_the_queue_is_full(narrow: Server) -> None:
    speech = f"{narrow.url}/v1/audio/speech"
    statuses: list[int] = []
    with httpx.stream("POST", speech, json={"input": "One.", "stream": True}, timeout=60) as running:
        audio = running.iter_raw()  # kept: the request is cancelled with it
        next(audio)
        waiting = ask(narrow, "/v1/audio/speech", {"input": "Two."})
        wait_until(lambda: active(narrow) >= 2)

        def make_room(answer: Any) -> None:
            statuses.append(answer.status_code)
            if answer.status_code == 503:
                assert answer.headers["retry-after"]
                running.close()
                waiting.close()

        with DefaultHttpxClient(event_hooks={"response": [make_room]}) as http:
            client = OpenAI(base_url=f"{narrow.url}/v1", api_key="anything", http_client=http)
            with client.audio.speech.with_streaming_response.create(
                model="dia", voice="aria", input="Three.", response_format="wav", extra_body={"stream": True}
            ) as answer:
                assert next(answer.iter_bytes()).startswith(b"RIFF")

    assert statuses == [503, 200]
