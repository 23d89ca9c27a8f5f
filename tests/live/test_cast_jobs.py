"""A job of several voices survives the death of its server."""

import sys
from pathlib import Path

import pytest

from tests.live import cloning_server
from tests.live.jobs import status
from tests.live.server import Server
from tests.waiting import wait_until

VOICES = ("aria", "luna", "kai")
INPUTS = [
    {"text": f"This is line number {n} of a play that takes its time.", "voice_id": VOICES[n % 3]}
    for n in range(40)
]


@pytest.mark.full
def test_a_job_that_is_killed_is_said_by_the_same_voices(tmp_path: Path) -> None:
    command = (sys.executable, cloning_server.__file__, "serve")  # its tones depend on the voices
    server = Server(tmp_path, command=command, rate_limit_generate=0, rate_limit_jobs=0)
    server.start()
    body = {"inputs": INPUTS, "response_format": "wav", "timestamps": "segment"}
    wanted = server.post("/v1/text-to-dialogue", json=body | {"timestamps": None}).content
    job_id = server.post("/v1/text-to-dialogue?async_mode=true", json=body).json()["job_id"]
    wait_until(lambda: server.get(f"/jobs/{job_id}").json()["progress"] > 0)
    assert status(server, job_id) == "processing"
    server.kill()

    server.start()
    wait_until(lambda: status(server, job_id) == "completed")
    result = server.get(f"/jobs/{job_id}/result").content
    timestamps = server.get(f"/jobs/{job_id}/timestamps").json()["timestamps"]
    assert server.stop() == 0

    assert result == wanted
    assert len(timestamps) > 10
