"""A real server behind nginx with deploy/nginx.conf."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.live.address import PATIENCE_S, Address
from tests.live.clients import LONG
from tests.live.server import Server, free_port
from tests.live.websocket import WebSocketClient
from tests.recordings import wav_file

CONFIGURATION = (Path(__file__).parents[2] / "deploy" / "nginx.conf").read_text()
MAIN = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/dia-server.conf;
}}
"""


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
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    ours = CONFIGURATION.replace("127.0.0.1:7860", f"127.0.0.1:{server.port}")
    ours = ours.replace("listen 80;", f"listen 127.0.0.1:{port};")
    (folder / "dia-server.conf").write_text(ours)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with subprocess.Popen(command) as process:
        try:
            wait_for_answer(port)
            yield port
        finally:
            process.terminate()


def wait_for_answer(port: int) -> None:
    for _ in range(100):
        try:
            Address(f"http://127.0.0.1:{port}").get("/health").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.02)
    raise AssertionError("nginx does not answer")


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
