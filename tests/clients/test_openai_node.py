"""The official OpenAI SDK for Node.js against a running server: openai_sdk.mjs runs it."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.audio import seconds
from tests.live.server import Server
from tests.waiting import early_in_a_minute

PROGRAM = Path(__file__).parent / "openai_sdk.mjs"

pytestmark = pytest.mark.usefixtures("node_modules")


def node(case: str, server: Server, *arguments: str) -> Any:
    command = ["node", str(PROGRAM), case, server.url, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    ("audio_format", "content_type"),
    [
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("aac", "audio/aac"),
        ("flac", "audio/flac"),
        ("wav", "audio/wav"),
        ("pcm", "audio/pcm;rate=24000;channels=1"),
    ],
)
def test_every_format_of_openai_is_supported(server: Server, audio_format: str, content_type: str) -> None:
    answer = node("format", server, audio_format)

    assert answer["contentType"] == content_type
    assert 0.5 < seconds(base64.b64decode(answer["audio"]), audio_format) < 3


def test_a_stream_comes_in_chunks(server: Server) -> None:
    stream = node("stream", server)

    assert stream["chunks"] > 1
    assert stream["bytes"] > 500_000


def test_events_carry_the_audio(server: Server) -> None:
    answer = node("sse", server)

    assert answer["contentType"].startswith("text/event-stream")
    *deltas, done = answer["events"]
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    audio = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert 0.5 < seconds(audio, "pcm") < 3
    assert done["type"] == "speech.audio.done"
    assert done["usage"].keys() == {"input_tokens", "output_tokens", "total_tokens"}


def test_models_are_listed_and_found(server: Server) -> None:
    assert node("models", server) == {"ids": ["dia"], "owner": "nari-labs"}


@pytest.mark.parametrize(
    ("wrong", "kind", "param"),
    [
        ({"voice": "nobody"}, "NotFoundError", "voice"),
        ({"input": "x" * 4097}, "UnprocessableEntityError", "input"),
        ({"speed": 9.0}, "UnprocessableEntityError", "speed"),
    ],
)
def test_errors_arrive_as_openai_errors(server: Server, wrong: dict[str, Any], kind: str, param: str) -> None:
    error = node("error", server, json.dumps(wrong))

    assert (error["type"], error["param"]) == (kind, param)
    assert error["code"]
    assert "no body" not in error["message"]


def test_a_rate_limited_client_gets_retry_after(tmp_path: Path) -> None:
    with Server(tmp_path, rate_limit_generate=1) as server:
        early_in_a_minute(10)
        error = node("limit", server)

    assert (error["type"], error["status"]) == ("RateLimitError", 429)
    assert 1 <= int(error["retryAfter"]) <= 60


def test_the_client_retries_when_the_queue_is_full(narrow: Server) -> None:
    assert node("full", narrow) == {"statuses": [503, 200], "beginning": "RIFF"}
