"""Runs checks one after another, each in a process of its own with a deadline.

A check that crashes or hangs costs its own results only: those it has reported before are kept.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.report import Report

REFUSED = 3
"""Exit status of a check that finds the machine unfit for all checks."""
LEAST_S = 3.0
"""Minimum seconds of the budget for which a check is started."""
DUMP_S = 1.0
"""Seconds for a hanging check to write its threads' stacks to the log."""
KILL_S = 10.0
"""Seconds to wait for a killed process, which the GPU's driver may keep alive."""
ERROR_LINES = 12
"""Lines of the log that are reported for a check that failed."""
LOG = "errors.log"
"""File in the output folder with what the checks write to stderr."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    command: Sequence[str]
    seconds: float
    """Maximum run time, if the budget leaves as much."""


def run_checks(checks: Sequence[Check], budget_s: float, out: Path) -> dict[str, str]:
    """Run `checks` in `budget_s` seconds altogether and return the status of each by its name.

    A status is "ok", "failed", "hung", "skipped" (no budget left) or "refused"; none is run after a refusal.
    """
    end = time.monotonic() + budget_s
    statuses: dict[str, str] = {}
    for check in checks:
        report = Report(out, check.name)
        left = end - time.monotonic()
        if left < LEAST_S:
            statuses[check.name] = "skipped"
            report.line(status="skipped", error=f"{max(0.0, left):.0f} s of the budget are left")
            continue
        start = time.monotonic()
        status, error = run_check(check, min(check.seconds, left), out / LOG)
        statuses[check.name] = status
        explained = {"error": error} if status != "ok" else {}
        report.line(status=status, seconds=round(time.monotonic() - start, 1), **explained)
        if status == "refused":
            break
    return statuses


def run_check(check: Check, seconds: float, log_path: Path) -> tuple[str, str]:
    """Run one check for at most `seconds`; return its status and the last lines that it wrote to stderr."""
    with log_path.open("ab") as log:
        log.write(f"--- {check.name}\n".encode())
        log.flush()
        begin = log.tell()
        # a group, so that the check's own processes (compilers, a worker) end with it
        process = subprocess.Popen(check.command, stderr=log, process_group=0)
        try:
            status = _status_of(process.wait(seconds))
        except subprocess.TimeoutExpired:
            status = "hung"
            process.send_signal(signal.SIGUSR1)
            with suppress(subprocess.TimeoutExpired):
                process.wait(DUMP_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(KILL_S)
    written = log_path.read_bytes()[begin:].decode(errors="replace").strip()
    error = "\n".join(written.splitlines()[-ERROR_LINES:])
    return status, error or f"exit status {process.returncode}, nothing on stderr"


def _status_of(code: int) -> str:
    return {0: "ok", REFUSED: "refused"}.get(code, "failed")
