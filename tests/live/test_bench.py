"""`dia-server bench` against a real server."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.live import forks
from tests.live.server import Server
from tests.waiting import wait_until


def bench(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return forks.run(["-m", "dia_server", "bench", *arguments], cwd, os.environ | variables, timeout=120)


def test_a_running_server_is_measured(server: Server, tmp_path: Path) -> None:
    run = bench(server.url, "--clients=1,2", "--requests=4", cwd=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    title, _, *rows = run.stdout.splitlines()
    assert title.endswith("engine preview")
    assert [row.split()[:3] for row in rows] == [["1", "4", "0"], ["2", "4", "0"]]
    first_p50, first_p95, total_p50, total_p95, throughput = map(float, rows[0].split()[3:])
    assert 0 < first_p50 <= total_p50 <= total_p95
    assert first_p50 <= first_p95
    assert throughput > 1


def test_without_an_address_bench_starts_a_server(tmp_path: Path) -> None:
    run = bench("--clients=1", "--requests=2", cwd=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_bench_leaves_the_configured_database_alone(tmp_path: Path) -> None:
    """If the benchmark opened it, finished jobs would be marked failed: their files are in another folder."""
    with Server(tmp_path, rate_limit_jobs=0) as server:
        server.post("/generate?async_mode=true", json={"text": "Keep me."}).raise_for_status()
        wait_until(lambda: server.get("/jobs?status=completed").json()["jobs"])
    (tmp_path / "elsewhere").mkdir()
    database = f"sqlite+aiosqlite:///{tmp_path / 'dia.sqlite3'}"

    run = bench("--clients=1", "--requests=1", cwd=tmp_path / "elsewhere", DIA_DATABASE_URL=database)

    assert (run.returncode, run.stderr) == (0, "")
    with closing(sqlite3.connect(tmp_path / "dia.sqlite3")) as kept:
        assert kept.execute("SELECT status FROM jobs").fetchall() == [("completed",)]


@pytest.mark.parametrize("clients", ["0", "1,-1", "many", ""])
def test_invalid_numbers_of_clients_are_refused(clients: str, tmp_path: Path) -> None:
    run = bench("http://127.0.0.1:1", f"--clients={clients}", cwd=tmp_path)

    assert (run.returncode, run.stderr) == (1, "Error: --clients takes numbers from 1, comma-separated\n")


@pytest.mark.full
def test_refused_requests_are_counted_and_reported(tmp_path: Path) -> None:
    with Server(tmp_path, api_keys="secret") as server:
        run = bench(server.url, "--clients=1", "--requests=1", cwd=tmp_path)

    assert run.returncode == 1
    assert "401" in run.stderr
    assert run.stdout.splitlines()[-1].split() == ["1", "1", "1", "-", "-", "-", "-", "0.0"]


def test_an_unreachable_server_is_reported(tmp_path: Path) -> None:
    run = bench("http://127.0.0.1:1", cwd=tmp_path)

    assert run.returncode == 1
    assert "No dia-server answers at http://127.0.0.1:1" in run.stderr
