"""A real server behind nginx with deploy/nginx.conf, and two that refuse behind deploy/nginx-servers.conf."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.live import nginx
from tests.live.address import PATIENCE_S, Address
from tests.live.clients import LONG
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.recordings import wav_file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a slow tone model."""
    program = str(Path(__file__).parent / "slow_server.py")
    folder = tmp_path_factory.mktemp("slow")
    with Server(folder, command=(sys.executable, program, "serve"), rate_limit_generate=0) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Yield the port of an nginx in front of `server`."""
    with nginx.proxy(tmp_path_factory.mktemp("nginx"), "nginx.conf", {"127.0.0.1:7860": server.port}) as port:
        yield port


def test_uploads_pass(proxy: int) -> None:
    answer = Address(f"http://127.0.0.1:{proxy}").post(
        "/audio_prompts/upload",
        data={"prompt_id": "long", "transcript": "Three megabytes."},
        files={"audio_file": ("long.wav", wav_file(40.0))},
    )

    assert answer.status_code == 200, answer.text


def test_streamed_audio_is_not_buffered(proxy: int, server: Server) -> None:
    body = {"text": LONG, "stream": True}
    with httpx.stream("POST", f"http://127.0.0.1:{proxy}/generate", json=body, timeout=PATIENCE_S) as answer:
        assert answer.status_code == 200
        audio = answer.iter_raw()  # kept: the response is closed with it
        assert next(audio)
        busy = server.get("/health").json()["active_jobs"]

    assert busy > 0


def test_websockets_pass_and_an_address_has_64_connections(proxy: int, server: Server) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(WebSocketClient(proxy, "/ws/generate")) for _ in range(64)]
        assert {socket.status for socket in sockets} == {101}
        sockets[0].send({"type": "generate", "data": {"text": "Hi."}})
        message = sockets[0].receive()
        while message["type"] == "progress":
            message = sockets[0].receive()

        assert message["type"] == "complete"
        assert Address(f"http://127.0.0.1:{proxy}").get("/health").status_code == 429
        assert server.get("/health").status_code == 200


class Refusing(ThreadingHTTPServer):
    """A server that answers each POST with 503; it counts them, and redirects those of /begun_nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked = 0
        super().__init__(("127.0.0.1", 0), RefusingHandler)


class RefusingHandler(BaseHTTPRequestHandler):
    server: Refusing

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.server.asked += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503)
        if self.path == "/begun_nothing":
            self.send_header("X-Accel-Redirect", self.headers["X-Dia-Refused"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize(("path", "asked"), [("/begun_nothing", 1), ("/perhaps_begun", 0)])
def test_only_a_post_that_began_nothing_goes_to_another_server(tmp_path: Path, path: str, asked: int) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(Refusing()) for _ in range(2)]
        for server in servers:
            Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        ports = {f"dia-{n}:7860": server.server_port for n, server in enumerate(servers, 1)}
        port = stack.enter_context(nginx.proxy(tmp_path, "nginx-servers.conf", ports))

        headers = {"X-Dia-Refused": "/health"}  # the proxy replaces it
        answer = Address(f"http://127.0.0.1:{port}").post(path, content=b"Hello.", headers=headers)

    assert (answer.status_code, answer.content) == (503, b"Hello.")  # the last server's answer
    assert sorted(server.asked for server in servers) == [asked, 1]
