"""Malformed requests are answered in the error format, and the server goes on."""

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from tests.live.address import PATIENCE_S
from tests.live.server import Server

JSON = "Content-Type: application/json"
JSON_TYPE = b"application/json"
GOOD = b'{"text": "Hi"}'
ENVELOPE = {"detail", "error_code", "timestamp"}
"""Fields of every error; `param` and `limit` are added where they apply."""

WRONG_VALUES: list[object] = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    " ",
    [],
    ["Hi"],
    {},
    {"a": 1},
    "x" * 4097,
    "\x00",
    "***",
]
FIELDS = ["text", "voice_id", "response_format", "speed", "role", "temperature", "cfg_scale", "top_p", "seed"]
ALLOWED = {  # what of the above is right after all
    ("role", None), ("temperature", None), ("cfg_scale", None), ("top_p", None), ("seed", None),
    ("temperature", 1.5), ("cfg_scale", 1.5), ("speed", 1.5), ("top_p", 0), ("seed", 0),
}  # fmt: skip


def wrong_bodies() -> Iterator[bytes]:
    for field in FIELDS:
        for value in WRONG_VALUES:
            right = any(field == name and value is not True and value == good for name, good in ALLOWED)
            if not right and not (field == "response_format" and value == "wav"):
                yield json.dumps({"text": "Hi", field: value}).encode()
    yield from (
        b"",
        b"{",
        b"[" * 50_000,
        b'{"text":' * 50_000,
        b'{"text": "\xc3\x28"}',
        b"\xff\xfe\x00H\x00i",
        b'{"text": "Hi"}\x00',
        b'{"text": "Hi"',
        b"text=Hi",
        b"<text>Hi</text>",
        b"\x00" * 1000,
        b'{"text": "' + b"x" * 10_000_000 + b'"}',
        b'{"text": "Hi", "' + b"k" * 2_000_000 + b'": 1}',
    )


def send(server: Server, data: bytes) -> tuple[int, dict[str, str]]:
    """Send raw bytes; returns the answer's status and, of an error, its body.

    A server may answer and close before it has read everything.
    """
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return status, json.loads(body) if status >= 400 else {}


def request(body: bytes, *headers: str, target: str = "/generate", method: str = "POST") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def still_speaks(server: Server) -> bool:
    return server.post("/generate", json={"text": "Hi"}).status_code == 200


def test_a_hundred_wrong_bodies(server: Server) -> None:
    bodies = list(wrong_bodies())
    assert len(bodies) >= 100

    for body in bodies:
        status, error = send(server, request(body, JSON))
        assert 400 <= status < 500, body[:80]
        assert error.keys() - {"param", "limit"} == ENVELOPE, body[:80]
    assert still_speaks(server)


@pytest.mark.parametrize(
    "data",
    [
        request(GOOD, JSON, target="/%00"),
        request(GOOD, JSON, target="/voice_mappings/%ff%fe", method="DELETE"),
        request(GOOD, JSON, target="/generate/../../etc/passwd"),
        request(GOOD, JSON, target="/static/..%2f..%2fapp.py", method="GET"),
        request(GOOD, JSON, target="/static/%2e%2e/%2e%2e/app.py", method="GET"),
        request(GOOD, "Content-Type: " + "x" * 1000),
        request(GOOD, "Content-Type: application/json; charset=\xff".encode().decode("latin-1")),
        request(GOOD, JSON, method="BREW"),
        request(GOOD, JSON, target="/" + "a" * 5000),
    ],
    ids=lambda data: data[:60].decode("latin-1"),
)
def test_odd_paths_and_headers(server: Server, data: bytes) -> None:
    status, error = send(server, data)

    assert status == 200 or (400 <= status < 500 and error.keys() - {"param", "limit"} == ENVELOPE)
    assert still_speaks(server)


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n", b"nonsense\r\n\r\n",
     request(GOOD, JSON, *(f"X-{n}: {n}" for n in range(500))),
     request(GOOD, JSON, "X-Long: " + "x" * 1_000_000)],
    ids=["tls", "version", "nonsense", "many headers", "long header"],
)  # fmt: skip
def test_what_is_not_http_does_no_harm(server: Server, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        first_line = b""
        with contextlib.suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            first_line = connection.recv(65536).partition(b"\r\n")[0]
    assert first_line == b"" or b" 4" in first_line or b" 5" in first_line
    assert still_speaks(server)


@pytest.mark.parametrize(
    ("headers", "status", "setting"),
    [
        ({"Host": "page.example", "Origin": "http://page.example"}, 421, "DIA_ALLOWED_HOSTS"),
        ({"Origin": "http://page.example"}, 403, "DIA_CORS_ORIGINS"),
    ],
    ids=["host", "origin"],
)
def test_a_handshake_is_refused_in_the_format_too(
    server: Server, headers: dict[str, str], status: int, setting: str
) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
    }
    answer = server.get("/ws/generate", headers=upgrade | headers)

    assert answer.status_code == status
    assert setting in answer.json()["detail"]
    assert answer.headers["x-request-id"]
    assert server.get("/health").status_code == 200


CHUNKED = b"POST %s HTTP/1.1\r\nHost: test\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n"
FORM = b"multipart/form-data; boundary=edge"


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (CHUNKED % (b"/generate", JSON_TYPE, b"ZZ"), False),
        (CHUNKED % (b"/generate", JSON_TYPE, b'7\r\n{"text"\r\nZZ'), False),
        (CHUNKED % (b"/audio_prompts/upload", FORM, b"ZZ"), False),
        (request(GOOD, JSON)[:-5], True),
        (request(b"--edge", f"Content-Type: {FORM.decode()}", target="/audio_prompts/upload")[:-2], True),
        (request(b"", target="/static/docs/%00", method="GET"), False),
    ],
    ids=["chunk", "later chunk", "chunk of a form", "half a body", "half a form", "nul in an address"],
)
def test_what_breaks_off_is_the_clients_error_and_one_line(server: Server, data: bytes, ends: bool) -> None:
    before = len(server.log)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert still_speaks(server)
    mine, *_ = server.log[before:].splitlines()
    assert "status" in mine
    assert "Traceback" not in server.log[before:]
