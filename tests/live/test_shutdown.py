"""Graceful shutdown of a server at work: within its timeout, and without losing a job."""

import http.client
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live import slow_server
from tests.live.clients import wait_for
from tests.live.jobs import status, submit
from tests.live.server import Server
from tests.live.slow_server import STEP_S
from tests.waiting import wait_until

SLOW = (sys.executable, slow_server.__file__, "serve")


def says(seconds: float) -> str:
    """Return a text that takes the slow server about so many seconds."""
    return "x" * int(seconds / STEP_S)


def slow(folder: Path, **settings: Any) -> Server:
    return Server(folder, command=SLOW, rate_limit_generate=0, rate_limit_jobs=0, max_batch=4, **settings)


class Request(threading.Thread):
    """A request that runs in a thread, and is already in the engine when the constructor returns."""

    def __init__(self, server: Server, text: str) -> None:
        super().__init__()
        self.server = server
        self.text = text
        self.answer: httpx.Response | None = None
        self.start()
        wait_for(server, busy=True)

    def run(self) -> None:
        self.answer = self.server.post("/generate", json={"text": self.text})


def end(server: Server, number: signal.Signals = signal.SIGTERM) -> float:
    """End the server, within a minute; return the seconds that took."""
    assert server.process
    started = time.monotonic()
    server.process.send_signal(number)
    server.process.wait(timeout=60)
    return time.monotonic() - started


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    """Servers that are killed when the test has ended."""
    servers: list[Server] = []
    yield servers
    for server in servers:
        if server.process and server.process.poll() is None:
            server.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_time_is_answered(tmp_path: Path, servers: list[Server], number: signal.Signals) -> None:
    servers.append(server := slow(tmp_path, shutdown_timeout=600))
    server.start()
    request = Request(server, says(1.5))
    end(server, number)  # when the work is done, not when the time is over
    request.join()

    assert request.answer is not None
    assert (request.answer.status_code, request.answer.content[:4]) == (200, b"RIFF")
    assert server.process
    assert server.process.returncode == 0
    assert "stopped" in server.log
    assert "deadline reached" not in server.log


def test_a_request_that_does_not_end_in_time_gets_503(tmp_path: Path, servers: list[Server]) -> None:
    servers.append(server := slow(tmp_path, shutdown_timeout=1))
    server.start()
    request = Request(server, says(18))
    took = end(server)
    request.join()

    assert request.answer is not None
    assert (request.answer.status_code, request.answer.json()["error_code"]) == (503, "MODEL_NOT_LOADED")
    assert request.answer.json()["detail"] == "The server is shutting down"
    assert took >= 1
    assert "Killing worker" not in server.log
    assert "deadline reached" in server.log
    assert "stopped" in server.log  # the application's own end was reached
    assert "Traceback" not in server.log
    assert server.process
    assert server.process.returncode == 0


def test_jobs_that_do_not_end_in_time_run_after_the_restart(tmp_path: Path, servers: list[Server]) -> None:
    servers.append(server := slow(tmp_path, shutdown_timeout=2))
    server.start()

    short, long, *queued = [submit(server, says(seconds)) for seconds in (0.2, 5, 2, 2, 2)]
    wait_until(lambda: "pending" not in (status(server, short), status(server, long)))
    took = end(server)
    assert took >= 2
    assert "Killing worker" not in server.log
    assert (tmp_path / "audio_outputs" / f"{short}.wav").exists()
    assert not (tmp_path / "audio_outputs" / f"{long}.wav").exists()

    server.start()
    assert status(server, short) == "completed"
    wait_until(lambda: {status(server, job_id) for job_id in (long, *queued)} == {"completed"})
    end(server)
    assert "Traceback" not in server.log


def test_a_client_that_does_not_read_cannot_prevent_shutdown(tmp_path: Path, servers: list[Server]) -> None:
    servers.append(server := Server(tmp_path, rate_limit_generate=0, shutdown_timeout=1))
    server.start()
    body = json.dumps({"text": "Much to say and nobody reads it. " * 120}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.request("POST", "/generate", body, {"content-type": "application/json"})
    # until the response waits to be read
    wait_until(lambda: server.get("/stats").json()["requests"]["successful"])
    end(server)
    connection.close()

    assert "Killing worker" in server.log  # there was nothing else that could end it


def test_an_idle_server_does_not_wait_for_the_timeout(tmp_path: Path, servers: list[Server]) -> None:
    servers.append(server := Server(tmp_path, shutdown_timeout=600))
    server.start()

    end(server)
