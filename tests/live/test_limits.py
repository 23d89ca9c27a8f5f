"""Slow clients, and clients that do not read, do not hinder others: a real server and raw sockets."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks.load import resident_mb
from dia_server.web.requests.message_size import MAX_RECEIVED
from tests.live.address import PATIENCE_S
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.memory import linux_only
from tests.waiting import wait_until

CROWD = 1100
"""Number of connections; more than Granian's default backlog of 1,024."""
SLOW_HEADERS = b"GET /health HTTP/1.1\r\nHost: test\r\nX-Slow: "
SLOW_BODY = (
    b"POST /generate HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)
LARGE_FILE = b"GET /static/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture(autouse=True, scope="module")
def many_files() -> Iterator[None]:
    """Raise this process's limit of open files; servers raise their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(CROWD + 500, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def crowd(server: Server, data: bytes, count: int = CROWD) -> Iterator[list[socket.socket]]:
    """Open `count` connections, and send `data` on each."""
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE_S)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(data)
            connections.append(connection)
        yield connections


@pytest.mark.parametrize("data", [SLOW_HEADERS, SLOW_BODY], ids=["headers", "bodies"])
def test_others_are_answered_beside_slow_clients(server: Server, data: bytes) -> None:
    with crowd(server, data):
        assert server.get("/health").status_code == 200


@linux_only
def test_responses_that_are_not_read_are_not_held_whole(server: Server) -> None:
    before = resident_mb(server)
    with crowd(server, LARGE_FILE, count=150) as connections:
        for connection in connections:  # sent in part: the rest waits
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert server.get("/health").status_code == 200

        assert resident_mb(server) - before < 100  # 260 MB were they held whole


def wait_until_all_are_closed(server: Server) -> None:
    """Wait until the server has closed all WebSockets of earlier tests."""
    none_open = 'dia_websockets_open{route="/ws/generate"} 0.0'
    wait_until(lambda: none_open in server.get("/metrics").text)


def send_without_end(client: WebSocketClient) -> None:
    client.begin_text(16 * MAX_RECEIVED)
    for _ in range(100):
        client.send_part(MAX_RECEIVED // 4)
        time.sleep(0.02)


@linux_only
def test_a_message_that_is_too_long_ends_the_socket_while_it_arrives(server: Server) -> None:
    with WebSocketClient(server.port, "/ws/generate") as client:
        assert client.status == 101
        with pytest.raises(ConnectionError):
            send_without_end(client)
    wait_until_all_are_closed(server)


def test_an_address_may_open_64_websockets(server: Server) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(WebSocketClient(server.port, "/ws/generate")) for _ in range(65)]

        assert [socket.status for socket in sockets] == [101] * 64 + [403]


def test_headers_are_limited_in_length(server: Server) -> None:
    assert server.get("/health", headers={"X-Long": "x" * 30_000}).status_code == 200
    assert server.get("/health", headers={"X-Long": "x" * 200_000}).status_code == 431
