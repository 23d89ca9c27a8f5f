"""Clients that go away while their speech is made."""

import http.client
import json
import time
from typing import Any

import httpx
import pytest

from tests.live.server import Server

LONG = ("This sentence takes a little while to say. " * 95)[:4096]


def active(server: Server) -> int:
    return int(httpx.get(f"{server.url}/health").json()["active_jobs"])


def wait_for(server: Server, *, busy: bool) -> float:
    """Wait until there are active utterances, or none; returns how long that took, in seconds."""
    started = time.monotonic()
    while (active(server) > 0) != busy:
        assert time.monotonic() - started < 10
        time.sleep(0.005)
    return time.monotonic() - started


def ask(server: Server, path: str, body: dict[str, Any]) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    return connection


@pytest.mark.parametrize(("path", "field"), [("/generate", "text"), ("/v1/audio/speech", "input")])
def test_a_client_that_leaves_frees_its_slot(server: Server, path: str, field: str) -> None:
    connections = [ask(server, path, {field: LONG}) for _ in range(8)]
    wait_for(server, busy=True)

    for connection in connections:
        connection.close()

    freed = wait_for(server, busy=False)
    whole = time.monotonic()
    assert httpx.post(f"{server.url}{path}", json={field: LONG}, timeout=60).status_code == 200
    assert freed < (time.monotonic() - whole) * 8  # far less than it would take to finish the eight


def test_leaving_is_no_error_in_the_log(server: Server) -> None:
    connection = ask(server, "/generate", {"text": LONG})
    wait_for(server, busy=True)
    connection.close()
    wait_for(server, busy=False)

    assert "Traceback" not in server.log
    assert "CLIENT_GONE" not in server.log
