"""Clients that disconnect while their audio is generated."""

import time

import pytest

from tests.live.clients import LONG, ask, wait_for
from tests.live.server import Server


@pytest.mark.parametrize(("path", "field"), [("/generate", "text"), ("/v1/audio/speech", "input")])
def test_a_client_that_disconnects_frees_its_slots(server: Server, path: str, field: str) -> None:
    connections = [ask(server, path, {field: LONG}) for _ in range(8)]
    wait_for(server, busy=True)

    for connection in connections:
        connection.close()

    freed = wait_for(server, busy=False)
    whole = time.monotonic()
    assert server.post(path, json={field: LONG}).status_code == 200
    assert freed < (time.monotonic() - whole) * 8  # far less than it would take to finish the eight


def test_a_disconnect_is_no_error_in_the_log(server: Server) -> None:
    connection = ask(server, "/generate", {"text": LONG})
    wait_for(server, busy=True)
    connection.close()
    wait_for(server, busy=False)

    assert "Traceback" not in server.log
    assert "CLIENT_GONE" not in server.log
