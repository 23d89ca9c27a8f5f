"""Voice design in a real server, which is killed while it makes candidates."""

import os
import sys
from pathlib import Path

import pytest

from tests.live import cloning_server
from tests.live.clients import wait_for
from tests.live.server import Server
from tests.waiting import wait_until

COMMAND = (sys.executable, cloning_server.__file__, "serve")


@pytest.mark.full
def test_candidates_survive_a_kill(tmp_path: Path) -> None:
    server = Server(tmp_path, command=COMMAND)
    try:
        server.start()
        accepted = server.post("/voices/aria/candidates", json={"count": 3}).json()["candidates"]
        wait_for(server, busy=True)
        server.kill()
        assert os.listdir(tmp_path / "candidates") == []

        server.start()
        wait_until(lambda: statuses(server) == ["completed"] * 3)
        candidates = server.get("/voices/aria/candidates").json()["candidates"]
        assert {one["seed"] for one in candidates} == {one["seed"] for one in accepted}
        assert {one["candidate_id"] for one in candidates} == {one["candidate_id"] for one in accepted}

        server.kill()
        server.start()
        again = server.get("/voices/aria/candidates").json()["candidates"]
        assert again == candidates
        assert server.get(again[0]["audio_url"]).content.startswith(b"RIFF")
        kept = server.post("/voices/aria/anchor", json={"candidate_id": again[0]["candidate_id"]})
        assert kept.json()["seed"] == again[0]["seed"]
    finally:
        server.kill()


def statuses(server: Server) -> list[str]:
    return [one["status"] for one in server.get("/voices/aria/candidates").json()["candidates"]]
