"""The user's own benchmark, on a real server."""

import subprocess
import sys
from pathlib import Path

from tests.live.server import Server


def bench(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dia_server", "bench", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


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


def test_without_an_address_it_starts_a_server_of_its_own(tmp_path: Path) -> None:
    run = bench("--clients=1", "--requests=2", cwd=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_refusals_are_counted_and_told(tmp_path: Path) -> None:
    with Server(tmp_path, api_keys="secret") as server:
        run = bench(server.url, "--clients=1", "--requests=1", cwd=tmp_path)

    assert run.returncode == 1
    assert "401" in run.stderr
    assert run.stdout.splitlines()[-1].split() == ["1", "1", "1", "-", "-", "-", "-", "0.0"]


def test_no_server_is_told_in_words(tmp_path: Path) -> None:
    run = bench("http://127.0.0.1:1", cwd=tmp_path)

    assert run.returncode == 1
    assert "No dia-server answers at http://127.0.0.1:1" in run.stderr
