"""Two processes claim, complete and cancel the same jobs: the database says yes to one of them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dia_server.db.engine import Database
from dia_server.services.jobs.store import JobStatus, JobStore
from dia_server.services.peers import Membership
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot
from tests.live import racer
from tests.postgres import ON_POSTGRES

pytestmark = [ON_POSTGRES, pytest.mark.full]

JOBS = 200
REQUEST = SpeechRequest(text="Hello", voice_id="aria", seed=1)


class Racer:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def send(self, line: str = "") -> None:
        self._stdin.write(line + "\n")
        self._stdin.flush()

    def receive(self) -> str:
        return self._stdout.readline().strip()


@contextmanager
def racing(url: str, owner: str, action: str) -> Iterator[Racer]:
    command = [sys.executable, racer.__file__, url, owner, action]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Racer(process)  # at its end the input is closed, which ends the process


async def add(database: Database, owner: str, status: JobStatus) -> list[str]:
    membership = Membership(database)
    membership.server_id = owner
    await membership.join()
    store = JobStore(database, membership)
    jobs = [
        (await store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), status)).job_id for _ in range(JOBS)
    ]
    await membership.leave()
    return jobs


async def test_a_job_is_claimed_once(database: Database, database_url: str) -> None:
    jobs = await add(database, "", "pending")
    with racing(database_url, "first", "claim") as first, racing(database_url, "second", "claim") as second:
        claimed: list[str] = []
        while len(claimed) < JOBS:
            first.send()
            second.send()
            claimed += [job_id for job_id in (first.receive(), second.receive()) if job_id]

    assert sorted(claimed) == sorted(jobs)


async def test_a_job_is_either_completed_or_cancelled(database: Database, database_url: str) -> None:
    outcomes = []
    jobs = await add(database, "owner", "processing")
    with racing(database_url, "owner", "complete") as owner, racing(database_url, "", "cancel") as other:
        for job_id in jobs:
            owner.send(job_id)
            other.send(job_id)
            outcomes.append((owner.receive() == job_id, other.receive() == job_id))

    assert all(completed != cancelled for completed, cancelled in outcomes)
    assert len(set(outcomes)) == 2  # each of them has won
