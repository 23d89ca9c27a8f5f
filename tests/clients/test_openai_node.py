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

Answers = dict[tuple[str, ...], Any]
"""Results by case and argument."""
PROGRAM = Path(__file__).parent / "openai_sdk.mjs"

pytestmark = pytest.mark.usefixtures("node_modules")


def node(server: Server, *cases: tuple[str, ...]) -> Any:
    """Run the cases in one process; return the result of each."""
    command = ["node", str(PROGRAM), server.url, json.dumps(cases)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


FORMATS = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm;rate=24000;channels=1",
}
"""Content type of each format."""
ERRORS = (
    ("voice", "nobody", "NotFoundError"),
    ("input", "x" * 4097, "UnprocessableEntityError"),
    ("speed", 9.0, "UnprocessableEntityError"),
)
"""A field, a wrong value, and the kind of error that the SDK raises for it."""


def error_case(field: str, value: object) -> tuple[str, str]:
    return ("error", json.dumps({field: value}))


@pytest.fixture(scope="module")
def answers(server: Server) -> Answers:
    """Results of the cases that need no server of their own."""
    cases: list[tuple[str, ...]] = [("stream",), ("sse",), ("models",)]
    cases += [("format", name) for name in FORMATS] + [error_case(field, value) for field, value, _ in ERRORS]
    return dict(zip(cases, node(server, *cases), strict=True))


@pytest.mark.parametrize(("audio_format", "content_type"), FORMATS.items())
def test_every_format_of_openai_is_supported(answers: Answers, audio_format: str, content_type: str) -> None:
    answer = answers["format", audio_format]

    assert answer["contentType"] == content_type
    assert 0.5 < seconds(base64.b64decode(answer["audio"]), audio_format) < 3


def test_a_stream_comes_in_chunks(answers: Answers) -> None:
    stream = answers["stream",]

    assert stream["chunks"] > 1
    assert stream["bytes"] > 500_000


def test_events_carry_the_audio(answers: Answers) -> None:
    answer = answers["sse",]

    assert answer["contentType"].startswith("text/event-stream")
    *deltas, done = answer["events"]
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    audio = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert 0.5 < seconds(audio, "pcm") < 3
    assert done["type"] == "speech.audio.done"
    assert done["usage"].keys() == {"input_tokens", "output_tokens", "total_tokens"}


def test_models_are_listed_and_found(answers: Answers) -> None:
    assert answers["models",] == {"ids": ["dia"], "owner": "nari-labs"}


@pytest.mark.parametrize(("field", "value", "kind"), ERRORS, ids=[field for field, *_ in ERRORS])
def test_errors_arrive_as_openai_errors(answers: Answers, field: str, value: object, kind: str) -> None:
    error = answers[error_case(field, value)]

    assert (error["type"], error["param"]) == (kind, field)
    assert error["code"]
    assert "no body" not in error["message"]


@pytest.mark.full
def test_a_rate_limited_client_gets_retry_after(tmp_path: Path) -> None:
    with Server(tmp_path, rate_limit_generate=1) as server:
        early_in_a_minute(10)
        (error,) = node(server, ("limit",))

    assert (error["type"], error["status"]) == ("RateLimitError", 429)
    assert 1 <= int(error["retryAfter"]) <= 60


@pytest.mark.full
def test_the_client_retries_when_the_queue_is_full(narrow: Server) -> None:
    assert node(narrow, ("full",)) == [{"statuses": [503, 200], "beginning": "RIFF"}]
