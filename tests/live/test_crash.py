"""Accepted jobs survive SIGKILL at any moment."""

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
from tests.tones import CHUNK

FADES = 2 * SAMPLE_RATE // 50
"""Bytes at each end of a recording that are not compared; fades change some of them."""

Finished = dict[str, tuple[str, int, int]]
"""Job id to the job's completion time (text), and its file's modification time (ns) and inode."""


@pytest.mark.parametrize(
    ("jobs", "kills"),
    [pytest.param(12, 5, id="gate"), pytest.param(40, 20, id="full", marks=pytest.mark.full)],
)
def test_each_job_has_one_result_after_many_kills(tmp_path: Path, jobs: int, kills: int) -> None:
    seed = random.randrange(2**32)
    print(f"the moments of seed {seed}")  # shown where this fails
    moments = random.Random(seed)
    slow = (sys.executable, slow_server.__file__, "serve")
    server = Server(tmp_path, command=slow, rate_limit_generate=0, rate_limit_jobs=0, max_batch=4)
    server.start()
    accepted = {submit(server, text): text for text in (f"{i} " + "x" * (60 + i) for i in range(jobs))}
    seen: Finished = {}
    killed_at_work = 0
    for goal in sorted(moments.choices(range(jobs // 2), k=kills)):
        # kills are spread over the work by progress, not by time
        while len(finished(tmp_path)) < goal:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.1))
        server.kill()
        killed_at_work += running(tmp_path) > 0
        now = finished(tmp_path)
        assert now.items() >= seen.items()  # nothing that was completed is made again
        seen = now
        server.start()
    while len(finished(tmp_path)) < jobs:
        time.sleep(0.05)
    stats = server.get("/stats").json()["requests"]
    listed = server.get("/jobs").json()["jobs"]
    assert server.stop() == 0

    assert killed_at_work > kills / 2
    assert [job["job_id"] for job in reversed(listed)] == list(accepted)
    assert {job["status"] for job in listed} == {"completed"}
    assert {path.name for path in results(tmp_path)} == {f"{job_id}.wav" for job_id in accepted}
    lengths = [check(tmp_path / "audio_outputs" / f"{job}.wav", text) for job, text in accepted.items()]
    # every generation that came to its end is counted together with its job's completion, and once
    assert stats == {"total": jobs, "successful": jobs, "failed": 0, "success_rate": 100.0}
    assert counted_audio(tmp_path) == pytest.approx(sum(lengths))


def results(folder: Path) -> list[Path]:
    return list((folder / "audio_outputs").glob("[!.]*"))


def check(path: Path, text: str) -> float:
    """Assert that a WAV file is whole, with a chunk for each character of `text`; return its seconds."""
    with wave.open(str(path)) as audio:
        samples = audio.readframes(audio.getnframes())
        assert len(samples) == audio.getnframes() * 2 == path.stat().st_size - 44
        spoken = pcm16(CHUNK) * len(f"[S1] {text}.")
        assert len(samples) == len(spoken)
        assert samples[FADES:-FADES] == spoken[FADES:-FADES]
        length: float = audio.getnframes() / audio.getframerate()
        return length


def finished(folder: Path) -> Finished:
    rows = query(folder, "SELECT job_id, finished_at, file FROM jobs WHERE status = 'completed'")
    found = {}
    for job_id, moment, file in rows:
        status = (folder / "audio_outputs" / str(file)).stat()
        found[str(job_id)] = (str(moment), status.st_mtime_ns, status.st_ino)
    return found


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
