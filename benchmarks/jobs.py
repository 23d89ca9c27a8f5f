"""Latency of job lists while many jobs are queued, and of lists and statistics over many finished jobs.

    python benchmarks/jobs.py [--queued 200] [--finished 100000] [--requests 100]

Starts servers with the preview engine and empty databases. Prints milliseconds of whole HTTP requests on one
kept connection: the median and the 90th percentile.
"""

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

PORT = 7893
TEXT = "The quick brown fox jumps over the lazy dog and runs away into the dark wood. " * 5
LISTS = (
    "/jobs",
    "/jobs?status=completed",
    "/jobs?status=failed",
    "/jobs?status=pending",
    "/jobs?limit=1000",
)
TARGET_QUEUED_MS, TARGET_FINISHED_MS = 20, 50

# No row names a result file: at start, the server would look for it and fail the job.
FINISHED_ROWS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO jobs (job_id, status, request, voice, text_preview, attempts, progress, created_at, finished_at)
SELECT printf('%08x-0000-4000-8000-%012x', i, i),
       CASE WHEN i % 50 = 0 THEN 'failed' WHEN i % 10 = 0 THEN 'cancelled' ELSE 'completed' END,
       '{"text": "Hello", "voice_id": "aria", "seed": 1}', '{"voice_id": "aria"}', 'Hello', 1, 1.0,
       datetime('now'), datetime('now')
FROM n
"""


@contextmanager
def serving(folder: Path) -> Iterator[httpx.Client]:
    settings = {
        "DIA_DATA_DIR": str(folder),
        "DIA_PORT": str(PORT),
        "DIA_ENGINE": "preview",
        "DIA_RATE_LIMIT_GENERATE": "0",
        "DIA_RATE_LIMIT_JOBS": "0",
        "DIA_LOG_LEVEL": "error",
        "DIA_MAX_BATCH": "4",
    }
    server = subprocess.Popen([sys.executable, "-m", "dia_server", "serve"], env=os.environ | settings)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=60) as client:
            while not loaded(client):
                time.sleep(0.1)
            yield client
    finally:
        server.terminate()
        server.wait()


def loaded(client: httpx.Client) -> bool:
    try:
        return bool(client.get("/health").json()["model_loaded"])
    except httpx.TransportError:
        return False


def measure(client: httpx.Client, path: str, state: str, count: int, target_ms: float) -> None:
    took = []
    for _ in range(count):
        started = time.perf_counter()
        client.get(path).raise_for_status()
        took.append((time.perf_counter() - started) * 1000)
    median, slow = statistics.median(took), statistics.quantiles(took, n=10)[-1]
    verdict = "met" if median < target_ms else "MISSED"
    print(f"{f'GET {path}, {state}':<76}{median:8.1f}{slow:8.1f}   < {target_ms} ms: {verdict}")


def queued(jobs: int, requests: int) -> None:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as client:
        accepted = [client.post("/generate?async_mode=true", json={"text": TEXT}) for _ in range(jobs)]
        ids = [answer.json()["job_id"] for answer in accepted]
        waiting = len(client.get("/jobs?status=pending&limit=1000").json()["jobs"])
        state = f"{jobs} accepted, {waiting} pending"
        for path in ("/jobs", "/jobs?status=pending", f"/jobs/{ids[-1]}"):
            measure(client, path, state, requests, TARGET_QUEUED_MS)
        for job_id in ids:
            client.delete(f"/jobs/{job_id}")


def finished(jobs: int, requests: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with serving(Path(folder)):
            pass
        database = sqlite3.connect(Path(folder) / "dia.sqlite3")
        with database:
            database.execute(FINISHED_ROWS, (jobs,))
        database.close()
        with serving(Path(folder)) as client:
            for path in (*LISTS, "/stats"):
                measure(client, path, f"{jobs} finished", requests, TARGET_FINISHED_MS)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--queued", type=int, default=200)
    arguments.add_argument("--finished", type=int, default=100_000)
    arguments.add_argument("--requests", type=int, default=100)
    given = arguments.parse_args()
    print(f"{'milliseconds':<76}{'median':>8}{'90 %':>8}")
    queued(given.queued, given.requests)
    finished(given.finished, given.requests)


if __name__ == "__main__":
    main()
