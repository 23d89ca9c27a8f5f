"""Jobs and the WebSocket on a real server."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import forks
from tests.live.clients import active
from tests.live.jobs import status
from tests.live.server import Server, free_port
from tests.live.websocket import WebSocketClient
from tests.waiting import wait_until

LONG = "The quick brown fox jumps over the lazy dog and runs away into the dark wood. " * 50


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, rate_limit_generate=0, rate_limit_jobs=0, max_batch=2) as server:
        yield server


@pytest.mark.parametrize(
    ("variable", "used"), [("DIA_DATA_DIR", "dia.sqlite3"), ("DIA_DATABASE_URL", "audio_outputs")]
)
def test_a_second_server_on_the_same_data_refuses_to_start(
    server: Server, tmp_path: Path, variable: str, used: str
) -> None:
    """With a database of its own, too, because it would remove the results of the first."""
    own = {"DIA_DATABASE_URL": f"sqlite+aiosqlite:///{server.data_dir}/other.sqlite3"}
    same = {"DIA_DATA_DIR": str(server.data_dir), "DIA_PORT": str(free_port())}
    variables = os.environ | same | (own if variable in own else {})
    second = forks.run(["-m", "dia_server", "serve"], tmp_path, variables, timeout=30)

    assert second.returncode == 1
    assert "Another dia-server uses" in second.stderr
    assert used in second.stderr
    assert "DIA_DATA_DIR" in second.stderr
    assert "Traceback" not in second.stderr
    assert server.get("/health").status_code == 200


def test_the_messages_of_the_reference_on_the_wire(server: Server) -> None:
    with WebSocketClient(server.port, "/ws/generate") as client:
        assert client.status == 101
        client.send({"type": "generate", "data": {"text": "Hello, world!", "voice_id": "aria"}})
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1]["type"] == "progress":
            messages.append(client.receive())

        job_id = messages[0]["job_id"]
        assert messages[-1] == {
            "type": "complete",
            "job_id": job_id,
            "audio_url": f"/jobs/{job_id}/result",
        }
        assert server.get(messages[-1]["audio_url"]).content[:4] == b"RIFF"

        client.send({"type": "generate", "data": {"text": ""}})
        assert client.receive()["type"] == "error"


def test_messages_that_are_too_deep_or_too_large_keep_the_socket_open(server: Server) -> None:
    with WebSocketClient(server.port, "/ws/generate") as client:
        for text, code in (
            ('{"x": ' + "[" * 100_000, "BAD_REQUEST"),
            ('{"x": "%s"}' % ("x" * 2**21), "PAYLOAD_TOO_LARGE"),
        ):
            client.send_text(text)
            assert client.receive()["error_code"] == code

        client.send({"type": "generate", "data": {"text": "Hello, world!"}})
        assert client.receive()["type"] == "progress"


def test_audio_is_sent_while_the_rest_is_made(server: Server) -> None:
    with WebSocketClient(server.port, "/ws/generate") as client:
        client.send({"type": "generate", "data": {"text": LONG, "stream": True, "response_format": "mp3"}})
        told = 0
        while not isinstance(message := client.receive(), bytes):
            assert message["type"] in {"progress", "audio"}
            told = message.get("progress", told)
        assert message[0] == 0xFF  # an mp3 frame
        assert told < 100


def test_a_client_that_disconnects_cancels_its_job(server: Server) -> None:
    client = WebSocketClient(server.port, "/ws/generate")
    client.send({"type": "generate", "data": {"text": LONG}})
    job_id = client.receive()["job_id"]
    client.vanish()

    wait_until(lambda: status(server, job_id) == "cancelled")
    wait_until(lambda: not active(server))


def test_a_client_that_does_not_read_can_cancel_after_other_messages(server: Server) -> None:
    with WebSocketClient(server.port, "/ws/generate") as client:
        client.limit_receive_buffer()
        client.send({"type": "generate", "data": {"text": LONG, "stream": True, "speed": 0.25}})
        job_id = client.receive()["job_id"]
        wait_until_it_stalls(server, job_id)

        client.send({"type": "dance"})
        client.send({"type": "cancel", "job_id": job_id})

        wait_until(lambda: status(server, job_id) == "cancelled")


def wait_until_it_stalls(server: Server, job_id: str) -> None:
    """Wait until a job's progress has stood still for a second, because its client does not read."""
    progress, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        now = server.get(f"/jobs/{job_id}").json()
        assert now["status"] == "processing"
        if now["progress"] != progress:
            progress, since = now["progress"], time.monotonic()
        time.sleep(0.05)


def test_texts_are_logged_only_with_show_prompts(tmp_path: Path) -> None:
    with Server(tmp_path, rate_limit_generate=0) as server:

        def speak(text: str) -> None:
            body = {"text": text, "voice_id": "aria"}
            assert server.post("/generate", json=body).status_code == 200
            server.post("/generate?async_mode=true", json=body)
            with WebSocketClient(server.port, "/ws/generate") as client:
                client.send({"type": "generate", "data": body})
                while client.receive()["type"] != "complete":
                    pass

        speak("Marmalade")
        server.put("/config", json={"debug_mode": True, "save_outputs": True})
        speak("Marmalade")
        assert "arma" not in server.log
        server.put("/config", json={"show_prompts": True})
        speak("Marmalade")
        assert server.log.count("[S1] Marmalade") >= 2
