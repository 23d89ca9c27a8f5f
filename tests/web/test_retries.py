"""Retries and remaining faults are reported in headers, jobs, events and messages."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.engine.types import Utterance
from dia_server.settings import Settings
from dia_server.units import SAMPLE_RATE
from tests.scripted import Part, ScriptedModel, speech

Client = TestClient[Litestar]

BAD_SEED = 7
ALWAYS_BAD = 77
TEXT = "The quick brown fox jumps over the lazy dog."


def script(utterance: Utterance) -> list[Part]:
    bad = utterance.seed in {BAD_SEED, ALWAYS_BAD, ALWAYS_BAD + 1}
    return [np.zeros(SAMPLE_RATE, np.float32)] if bad else speech(3.0)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    engine = Engine("dia", lambda _: ScriptedModel(script), max_waiting=8)
    app = create_app(settings, engine)
    with TestClient(app, raise_server_exceptions=False) as client:
        while not client.get("/health").json()["model_loaded"]:
            time.sleep(0.01)
        yield client


def retries(client: Client, faults: Sequence[str] = ()) -> int:
    """Return the retries of the only job once completed; assert `faults` in list and details."""
    deadline = time.monotonic() + 10
    jobs: list[dict[str, Any]] = []
    while not jobs:
        assert time.monotonic() < deadline
        jobs = client.get("/jobs?status=completed").json()["jobs"]
    (job,) = jobs
    count: int = job["retries"]
    details = client.get(f"/jobs/{job['job_id']}").json()
    assert (details["retries"], details["faults"]) == (count, list(faults))
    assert job["faults"] == list(faults)
    return count


@pytest.mark.parametrize(("seed", "count"), [(BAD_SEED, 1), (BAD_SEED + 1, 0)])
@pytest.mark.parametrize(("path", "field"), [("/generate", "text"), ("/v1/audio/speech", "input")])
def test_a_complete_response_reports_retries_in_a_header(
    client: Client, path: str, field: str, seed: int, count: int
) -> None:
    answer = client.post(path, json={field: TEXT, "seed": seed, "response_format": "wav"})

    assert (answer.headers["X-Seed"], answer.headers["X-Retries"]) == (str(seed), str(count))
    assert "X-Faults" not in answer.headers


def test_a_complete_response_reports_remaining_faults(client: Client) -> None:
    answer = client.post("/generate", json={"text": TEXT, "seed": ALWAYS_BAD})

    assert answer.status_code == 200
    assert (answer.headers["X-Retries"], answer.headers["X-Faults"]) == ("1", "silent")


@pytest.mark.parametrize(("seed", "faults"), [(BAD_SEED, []), (ALWAYS_BAD, ["silent"])])
def test_a_job_reports_retries_and_faults(client: Client, seed: int, faults: list[str]) -> None:
    client.post("/generate?async_mode=true", json={"text": TEXT, "seed": seed})

    assert retries(client, faults) == 1


@pytest.mark.parametrize(("seed", "faults"), [(BAD_SEED + 1, []), (BAD_SEED, ["silent"])])
def test_the_last_event_of_a_stream_reports_retries_and_faults(
    client: Client, seed: int, faults: list[str]
) -> None:
    """The first segment has been sent by then, and is not generated again."""
    answer = client.post("/v1/audio/speech", json={"input": TEXT, "seed": seed, "stream_format": "sse"})

    done = json.loads(answer.text.split("\n\n")[-2].removeprefix("data: "))
    assert (done["type"], done["retries"], done["faults"]) == ("speech.audio.done", 0, faults)


def test_a_stored_response_reports_retries_and_faults(client: Client) -> None:
    client.put("/config", json={"save_outputs": True})
    client.post("/generate", json={"text": TEXT, "seed": BAD_SEED})

    assert retries(client) == 1


@pytest.mark.parametrize(("stream", "count", "faults"), [(False, 1, []), (True, 0, ["silent"])])
def test_over_a_websocket_only_live_audio_has_no_retries(
    client: Client, stream: bool, count: int, faults: list[str]
) -> None:
    with client.websocket_connect("/ws/generate") as socket:
        socket.send_json({"type": "generate", "data": {"text": TEXT, "seed": BAD_SEED, "stream": stream}})

        assert retries(client, faults) == count
