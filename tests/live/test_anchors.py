"""Anchors in a real server, which is killed while it makes one, and restarted."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live import cloning_server
from tests.live.clients import wait_for
from tests.live.server import Server

TEXTS = [f"[S1] This is number {n}." for n in range(16)]
COMMAND = (sys.executable, cloning_server.__file__, "serve")
MAKING = "making the anchor of a voice"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, command=COMMAND, rate_limit_generate=0)
    yield server
    server.kill()


def say(server: Server, text: str) -> bytes:
    answer = server.post("/generate", json={"text": text, "voice_id": "aria"})
    assert answer.status_code == 200, answer.text
    return answer.content


def anchor_digest(server: Server) -> str | None:
    (aria, *_) = server.get("/voices").json()["voices"]
    digest: str | None = aria.get("anchor", {}).get("digest")
    return digest


@pytest.mark.full
def test_a_voice_is_made_once_and_survives_kill_and_restart(server: Server, tmp_path: Path) -> None:
    server.start()
    with ThreadPoolExecutor(17) as pool:
        pool.submit(server.post, "/generate", json={"text": TEXTS[0], "voice_id": "aria"})
        wait_for(server, busy=True)
        server.kill()

    server.start()
    assert anchor_digest(server) is None
    assert os.listdir(tmp_path / "anchors") == []
    with ThreadPoolExecutor(16) as pool:
        spoken = list(pool.map(lambda text: say(server, text), TEXTS))
    digest = anchor_digest(server)
    assert digest is not None
    assert os.listdir(tmp_path / "anchors") == [f"{digest}.anchor"]
    assert server.log.count(MAKING) == 2  # the one that was killed, and one for all sixteen requests
    server.stop()

    server.start()
    assert [say(server, text) for text in TEXTS[:4]] == spoken[:4]
    assert anchor_digest(server) == digest
    assert server.log.count(MAKING) == 2
