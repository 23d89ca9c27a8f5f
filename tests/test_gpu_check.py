"""The runner of `benchmarks.gpu_check` with checks that hang, fail and succeed; a rehearsal without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.machine import require_memory
from benchmarks.gpu.profile import Span, summarize
from benchmarks.gpu.report import RESULTS, Refused, Report
from benchmarks.gpu.runner import LOG, Check, run_checks
from dia_server.units import GIB

ROOT = Path(__file__).parent.parent
HANGS = "import time; time.sleep(600)"
REPORTS = "from benchmarks.gpu.report import Report; Report(Path(sys.argv[1]), '{}').line(value=1)"
BLOCKED = (
    *("aiosqlite", "alembic", "av", "click", "ctranslate2", "dotenv", "espeakng_loader", "faster_whisper"),
    *("granian", "litestar", "markdown_it", "msgspec", "multipart", "num2words", "numba"),
    *("prometheus_client", "sqlalchemy", "structlog", "uvloop"),
)
"""Packages of the server that a bare machine with torch and transformers lacks."""
IMPORTS = """
import importlib, sys
from benchmarks.gpu_check import CHECKS
assert "torch" not in sys.modules, "the runner must not depend on torch"
for check in CHECKS:
    importlib.import_module(f"benchmarks.gpu.{check}").run
"""


def check(name: str, out: Path, *statements: str, seconds: float = 60.0) -> Check:
    program = "; ".join(("import sys; from pathlib import Path", *statements))
    return Check(name, (sys.executable, "-c", program, str(out)), seconds)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / RESULTS).read_text().splitlines()]


@pytest.fixture
def bare_machine(tmp_path: Path) -> dict[str, str]:
    """Environment of Python processes that cannot import the packages in BLOCKED."""
    program = f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED}))\n"
    (tmp_path / "sitecustomize.py").write_text(program)
    return {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}:{ROOT}"}


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_checks_that_hang_or_fail_cost_only_their_own_results(tmp_path: Path) -> None:
    checks = [
        check("hangs", tmp_path, HANGS, seconds=1.0),
        check("fails", tmp_path, REPORTS.format("fails"), "raise ValueError('no luck')"),
        check("works", tmp_path, REPORTS.format("works")),
    ]

    statuses = run_checks(checks, 600, tmp_path)

    assert statuses == {"hangs": "hung", "fails": "failed", "works": "ok"}
    written = lines(tmp_path)
    assert [(line["check"], line.get("value", line.get("status"))) for line in written] == [
        ("hangs", "hung"),
        ("fails", 1),
        ("fails", "failed"),
        ("works", 1),
        ("works", "ok"),
    ]
    assert written[2]["error"].endswith("ValueError: no luck")
    assert "error" not in written[4]
    assert "ValueError: no luck" in (tmp_path / LOG).read_text()


def test_checks_are_skipped_once_the_budget_is_spent(tmp_path: Path) -> None:
    checks = [
        check("hangs", tmp_path, HANGS, seconds=600.0),
        check("works", tmp_path, REPORTS.format("works")),
    ]

    statuses = run_checks(checks, 3.5, tmp_path)

    assert statuses == {"hangs": "hung", "works": "skipped"}
    assert [line["status"] for line in lines(tmp_path)] == ["hung", "skipped"]


def test_a_fault_that_was_looked_for_misses_a_target(tmp_path: Path) -> None:
    report = Report(tmp_path, "kernels")

    report.absent("kernel fault", None)
    report.no_fallback(())
    report.absent("kernel fault", "no compiler")

    assert [(line["found"], line["holds"]) for line in lines(tmp_path)] == [
        (None, True),
        (None, True),
        ("no compiler", False),
    ]


def test_no_check_runs_on_a_machine_that_is_refused(tmp_path: Path) -> None:
    checks = [
        check("machine", tmp_path, "print('8 GiB are too few', file=sys.stderr)", "raise SystemExit(3)"),
        check("works", tmp_path, REPORTS.format("works")),
    ]

    assert run_checks(checks, 600, tmp_path) == {"machine": "refused"}
    assert [line["error"] for line in lines(tmp_path)] == ["8 GiB are too few"]


def test_a_gpu_of_8_gib_is_refused_and_one_of_12_is_not() -> None:
    require_memory("1.6B", 11 * GIB, 12 * GIB)
    require_memory("115M", 7 * GIB, 8 * GIB)

    with pytest.raises(Refused, match=r"needs 9\.5 GiB of free GPU memory; 7\.0 of 8\.0 GiB are free"):
        require_memory("1.6B", 7 * GIB, 8 * GIB)


def test_gaps_between_kernels_are_added_up() -> None:
    spans = [
        Span("mm", 20, 30),
        Span("Memcpy HtoD", 0, 2),
        Span("attention", 25, 40),
        Span("mm", 45, 65),
    ]

    found = summarize(spans)

    table = found.pop("table")
    assert found == {
        "kernels": 3,
        "span_us": 45,
        "busy_us": 40,
        "gap_us": 5,
        "gaps": 1,
        "longest_gap_us": 5,
    }
    assert table == [
        {"name": "mm", "count": 2, "us": 30},
        {"name": "attention", "count": 1, "us": 15},
    ]


def test_the_checks_need_torch_and_transformers_only(bare_machine: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], env=bare_machine, check=True)


@pytest.mark.full
def test_every_check_runs_in_a_rehearsal_without_a_gpu(bare_machine: dict[str, str], tmp_path: Path) -> None:
    options = ["--device", "cpu", "--size", "toy", "--budget", "900", "--out", str(tmp_path / "out")]

    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu_check", *options], env=bare_machine)

    written = lines(tmp_path / "out")
    assert set(written[-1]["statuses"].values()) == {"ok"}
    assert done.returncode == 0
    assert all(line["rehearsal"] for line in written if "what" in line)
