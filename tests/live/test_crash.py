"""Accepted jobs survive SIGKILL at any moment, with results in a folder or in an object storage."""

import io
import random
import sqlite3
import sys
import time
import wave
from pathlib import Path

import pytest

from dia_server.audio.wav import pcm16
from dia_server.units import SAMPLE_RATE
from tests.live import slow_server
from tests.live.jobs import submit
from tests.live.server import Server
from tests.storage import BOTH_STORAGES, Objects
from tests.tones import CHUNK

FADES = 2 * SAMPLE_RATE // 50
"""Bytes at each end of a recording that are not compared; fades change some of them."""

Finished = dict[str, tuple[str, object]]
"""Job id to the job's completion time (text), and the version of its result."""


class FolderResults:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def versions(self) -> dict[str, object]:
        """Map the name of each result to its modification time (ns) and inode."""
        found = ((path.name, path.stat()) for path in self._folder.glob("[!.]*"))
        return {name: (status.st_mtime_ns, status.st_ino) for name, status in found}

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()


class StoredResults:
    def __init__(self, url: str) -> None:
        self._objects = Objects(url)

    def versions(self) -> dict[str, object]:
        return self._objects.versions("outputs")

    def read(self, name: str) -> bytes:
        return self._objects.read(f"outputs/{name}")


Results = FolderResults | StoredResults


@pytest.mark.parametrize(
    ("jobs", "kills"),
    [pytest.param(12, 5, id="gate"), pytest.param(40, 20, id="full", marks=pytest.mark.full)],
)
def test_each_job_has_one_result_after_many_kills(tmp_path: Path, jobs: int, kills: int) -> None:
    check_kills(tmp_path, "", FolderResults(tmp_path / "audio_outputs"), jobs, kills)


@pytest.mark.full
@BOTH_STORAGES
def test_each_job_has_one_result_in_the_storage(tmp_path: Path, storage_url: str) -> None:
    check_kills(tmp_path, storage_url, StoredResults(storage_url), 40, 20)


def check_kills(tmp_path: Path, storage: str, results: Results, jobs: int, kills: int) -> None:
    """Kill a server `kills` times while it runs `jobs`; assert that each job has one result."""
    seed = random.randrange(2**32)
    print(f"the moments of seed {seed}")  # shown where this fails
    moments = random.Random(seed)
    slow = (sys.executable, slow_server.__file__, "serve")
    server = Server(
        tmp_path, command=slow, rate_limit_generate=0, rate_limit_jobs=0, max_batch=4, storage=storage
    )
    server.start()
    accepted = {submit(server, text): text for text in ("x" * (60 + i) for i in range(jobs))}
    seen: Finished = {}
    killed_at_work = 0
    for goal in sorted(moments.choices(range(jobs // 2), k=kills)):
        # kills are spread over the work by progress, not by time
        while len(finished(tmp_path, results)) < goal or not running(tmp_path):
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.1))
        server.kill()
        killed_at_work += running(tmp_path) > 0
        now = finished(tmp_path, results)
        assert now.items() >= seen.items()  # nothing that was completed is made again
        seen = now
        server.start()
    while len(finished(tmp_path, results)) < jobs:
        time.sleep(0.05)
    stats = server.get("/stats").json()["requests"]
    listed = server.get("/jobs").json()["jobs"]
    assert server.stop() == 0

    assert killed_at_work > kills / 2
    assert [job["job_id"] for job in reversed(listed)] == list(accepted)
    assert {job["status"] for job in listed} == {"completed"}
    assert results.versions().keys() == {f"{job_id}.wav" for job_id in accepted}
    lengths = [check(results.read(f"{job}.wav"), text) for job, text in accepted.items()]
    # every generation that came to its end is counted together with its job's completion, and once
    assert stats == {"total": jobs, "successful": jobs, "failed": 0, "success_rate": 100.0}
    assert counted_audio(tmp_path) == pytest.approx(sum(lengths))


def check(content: bytes, text: str) -> float:
    """Assert that a WAV file is whole, with a chunk for each character of `text`; return its seconds."""
    with wave.open(io.BytesIO(content)) as audio:
        samples = audio.readframes(audio.getnframes())
        assert len(samples) == audio.getnframes() * 2 == len(content) - 44
        spoken = pcm16(CHUNK) * len(f"[S1] {text}.")
        assert len(samples) == len(spoken)
        assert samples[FADES:-FADES] == spoken[FADES:-FADES]
        length: float = audio.getnframes() / audio.getframerate()
        return length


def finished(folder: Path, results: Results) -> Finished:
    rows = query(folder, "SELECT job_id, finished_at, file FROM jobs WHERE status = 'completed'")
    versions = results.versions()
    return {str(job_id): (str(moment), versions[str(file)]) for job_id, moment, file in rows}


def running(folder: Path) -> int:
    return len(query(folder, "SELECT 1 FROM jobs WHERE status = 'processing'"))


def counted_audio(folder: Path) -> float:
    ((audio_s,),) = query(folder, "SELECT audio_s FROM totals")
    assert isinstance(audio_s, float)
    return audio_s


def query(folder: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder / "dia.sqlite3")
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()
