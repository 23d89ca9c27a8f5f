"""HTTP clients that disconnect or read slowly, and the server's number of active utterances."""

import contextlib
import http.client
import json
import socket
import time
from typing import Any, Self

from tests.live.address import PATIENCE_S
from tests.live.server import Server

LONG = ("This sentence takes a little while to say. " * 95)[:4096]


def active(server: Server) -> int:
    """Return the number of utterances that run or wait."""
    return int(server.get("/health").json()["active_jobs"])


def wait_for(server: Server, *, busy: bool) -> float:
    """Wait until any utterance is active, or none is; return the seconds that took."""
    started = time.monotonic()
    while (active(server) > 0) != busy:
        assert time.monotonic() - started < PATIENCE_S
        time.sleep(0.005)
    return time.monotonic() - started


def ask(server: Server, path: str, body: dict[str, Any]) -> http.client.HTTPConnection:
    """Send a request without reading the response; closing the connection cancels it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    return connection


class Reader:
    """A client with a small receive buffer that reads a stream (at speed 0.25) at a set rate."""

    def __init__(self, server: Server, text: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port)
        self._connection.connect()
        assert self._connection.sock is not None
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.port: int = self._connection.sock.getsockname()[1]
        body = json.dumps({"text": text, "stream": True, "speed": 0.25})
        self._connection.request("POST", "/generate", body, {"content-type": "application/json"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def read_for(self, seconds: float, *, per_second: int) -> None:
        answer = self._connection.getresponse()
        assert answer.status == 200
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert answer.read(per_second // 10)
            time.sleep(0.1)
        with contextlib.suppress(OSError):
            answer.close()
