"""Checks and measures the engine on a GPU, within ten minutes, on a machine that has torch and transformers.

    PYTHONPATH=src python -m benchmarks.gpu_check --budget 420 --out DIR
    PYTHONPATH=src python -m benchmarks.gpu_check --check codec          one check, in this process
    PYTHONPATH=src python -m benchmarks.gpu_check --device cpu --size toy     a rehearsal without a GPU

Needs none of the server's other packages, no weights and no network. Each check runs in a process of its own
with a deadline. Results go to stdout and to DIR/results.jsonl, one JSON line each, synced to the disk; kernel
tables of one decode step to DIR/profile-*.json; error output, with the stacks of a check that hangs, to
DIR/errors.log.

Exits with status 0 only if every check ends without an error and every target is met. Targets in
milliseconds and times real time are for an H200; on other GPUs the shares of the byte limit are what counts.
Every line of a rehearsal has `"rehearsal": true`: its numbers say nothing about a GPU.
"""

import argparse
import faulthandler
import importlib
import json
import signal
import sys
from pathlib import Path

from benchmarks.gpu.report import RESULTS, Refused, Report
from benchmarks.gpu.runner import LOG, REFUSED, Check, run_checks

CHECKS = {
    "machine": 45.0,
    "kernels": 45.0,
    "graphs": 70.0,
    "compiled": 170.0,
    "products": 30.0,
    "codec": 50.0,
    "serving": 110.0,
    "parity": 70.0,
}
"""Check, which is a module of `benchmarks.gpu`, to its maximum seconds; in the order in which they run."""
BUDGET_S = 420.0
"""Default seconds for all checks; a larger budget raises the maximum of each check by the same factor."""


def main() -> None:
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.check:
        run_one(given.check, given.device, given.size, given.out)
    else:
        run_all(given.device, given.size, given.out, given.budget)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--size", default="1.6B", help="a size of benchmarks/models.py")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all checks")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for the results")
    parser.add_argument("--check", choices=CHECKS, help="run this check only, without a deadline")
    return parser.parse_args()


def run_all(device: str, size: str, out: Path, budget_s: float) -> None:
    """Run every check in its own process; exit with status 0 if all end well and meet their targets."""
    for name in (RESULTS, LOG):
        (out / name).unlink(missing_ok=True)
    this = (sys.executable, "-m", "benchmarks.gpu_check")
    options = ("--device", device, "--size", size, "--out", str(out))
    factor = max(1.0, budget_s / BUDGET_S)
    checks = [Check(name, (*this, *options, "--check", name), factor * most) for name, most in CHECKS.items()]
    statuses = run_checks(checks, budget_s, out)
    lines = [json.loads(line) for line in (out / RESULTS).read_text().splitlines()]
    missed = [line["what"] for line in lines if line.get("holds") is False]
    Report(out, "all").line(statuses=statuses, missed_targets=missed)
    raise SystemExit(0 if set(statuses.values()) == {"ok"} and not missed else 1)


def run_one(name: str, device: str, size: str, out: Path) -> None:
    """Run one check in this process; exit with status 1 if a part of it fails."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # imported here: the process that runs all checks must not hang with torch or a driver
    from benchmarks.gpu.setup import Setup, prepare

    setup = Setup(device, size, out)
    report = Report(out, name, **({} if setup.on_gpu else {"rehearsal": True}))
    try:
        prepare(setup)
        importlib.import_module(f"benchmarks.gpu.{name}").run(setup, report)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        raise SystemExit(REFUSED) from None
    raise SystemExit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
