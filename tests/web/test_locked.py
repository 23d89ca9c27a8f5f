"""While another program locks the database, writes are refused with the cause; afterwards they succeed."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from dia_server.app import create_app
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.job_client import connect, names
from tests.recordings import wav_file

pytestmark = pytest.mark.sqlite

Client = TestClient[Litestar]


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A client of a server that has a voice `mine` and a prompt `old`."""
    app = create_app(settings, timing=Timing(busy_timeout_ms=50))
    with TestClient(app, raise_server_exceptions=False) as client:
        while not client.get("/health").json()["model_loaded"]:
            time.sleep(0.01)
        assert client.post("/voice_mappings", json={"voice_id": "mine"}).is_success
        assert upload(client, "old").is_success
        yield client


@pytest.fixture
def other(client: Client, settings: Settings) -> Iterator[sqlite3.Connection]:
    with closing(connect(settings)) as connection:
        yield connection


def upload(client: Client, prompt_id: str) -> Any:
    file = {"audio_file": ("x.wav", wav_file(1.0))}
    form = {"prompt_id": prompt_id, "transcript": "Words."}
    return client.post("/audio_prompts/upload", data=form, files=file)


CHANGES = [
    ("POST", "/voice_mappings", {"voice_id": "another"}),
    ("DELETE", "/voice_mappings/mine", None),
    ("PUT", "/pronunciations", {"word": "old", "respelling": "owld"}),
    ("PUT", "/audio_prompts/old/transcript", {"transcript": "Other words."}),
    ("DELETE", "/audio_prompts/old", None),
    ("PUT", "/config", {"save_outputs": True}),
    ("POST", "/generate?async_mode=true", {"text": "Hello!"}),
]
PAGES = ("/voice_mappings", "/pronunciations", "/audio_prompts/metadata", "/config", "/jobs", "/voices")


def test_changes_are_refused_until_the_database_is_unlocked(
    client: Client, settings: Settings, other: sqlite3.Connection
) -> None:
    def state() -> Any:
        return [client.get(page).json() for page in PAGES], sorted(
            (path.name, path.read_bytes()) for path in settings.audio_prompts.iterdir()
        )

    before = state()
    other.execute("BEGIN IMMEDIATE")

    refusals = [client.request(method, path, json=body) for method, path, body in CHANGES]
    refusals += [upload(client, "old"), upload(client, "new")]
    for refused in refusals:
        assert (refused.status_code, refused.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE"), (
            refused.url
        )
        assert "locked" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
    assert state() == before
    assert client.post("/generate", json={"text": "Hello!"}).is_success
    assert client.get("/stats").is_success

    other.execute("ROLLBACK")
    for method, path, body in CHANGES:
        assert client.request(method, path, json=body).is_success, path
    assert upload(client, "new").is_success


def test_the_websocket_reports_a_locked_database_and_stays_open(
    client: Client, settings: Settings, other: sqlite3.Connection
) -> None:
    hello = {"type": "generate", "data": {"text": "Hello!"}}
    with client.websocket_connect("/ws/generate") as socket:
        other.execute("BEGIN IMMEDIATE")
        socket.send_json(hello)
        assert socket.receive_json(timeout=5)["error_code"] == "STORAGE_UNAVAILABLE"

        other.execute("ROLLBACK")
        socket.send_json(hello)
        while (message := socket.receive_json(timeout=5))["type"] == "progress":
            pass
    assert message["type"] == "complete"
    assert names(settings) == {f"{message['job_id']}.wav"}
