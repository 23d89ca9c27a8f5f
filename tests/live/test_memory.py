"""Memory of a server whose clients disconnect in mid-stream; benchmarks/soak.py has the long run."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live.clients import wait_for
from tests.live.server import Server
from tests.memory import linux_only, resident_of

TEXT = "This takes a little while to say. " * 20
FORMATS = ("wav", "mp3", "opus", "aac", "flac", "pcm")
TAKEN = 1000
"""Bytes that a client reads before it disconnects."""
MAX_GROWTH = 16 * 2**20
"""Bytes; 2.4 MiB were measured. Cancelled segments that wait for the garbage collector add more than 20."""


def break_off(server: Server, number: int) -> None:
    body = {"text": TEXT, "stream": True, "response_format": FORMATS[number % len(FORMATS)]}
    data = json.dumps(body).encode()
    head = "POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        taken = 0
        while taken < TAKEN:
            received = connection.recv(TAKEN)
            assert received
            taken += len(received)


def break_off_many(server: Server, count: int) -> int:
    """Break off `count` streams, and return the server's resident memory in bytes."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: break_off(server, number), range(count)))
    wait_for(server, busy=False)
    assert server.process is not None
    return resident_of(server.process.pid)


@pytest.mark.full
@linux_only
def test_streams_that_are_broken_off_leak_no_memory(server: Server) -> None:
    before = break_off_many(server, 60)  # warms up

    assert break_off_many(server, 120) - before < MAX_GROWTH
