"""Reports the line coverage of each package, and fails if one is below its floor.

Reads the data of `coverage combine`; `make test-full` calls it.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

PACKAGE = Path("src/dia_server")
FLOORS = {
    "audio": 96,
    "db": 95,
    "doctor": 88,
    "engine": 94,
    "fidelity": 95,
    "native": 90,
    "services": 94,
    "text": 97,
    "voice_tools": 85,
    "web": 95,
    "(top level)": 95,
}
"""Minimum line coverage of each package, in percent."""


def percent_by_package() -> dict[str, float]:
    with TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "--quiet", "-o", str(report)], check=True)
        files = json.loads(report.read_bytes())["files"]
    lines: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, file in files.items():
        first, *rest = Path(name).relative_to(PACKAGE).parts
        counts = lines[first if rest else "(top level)"]
        counts[0] += file["summary"]["covered_lines"]
        counts[1] += file["summary"]["num_statements"]
    return {package: 100 * covered / count for package, (covered, count) in lines.items() if count}


def main() -> None:
    below = 0
    for package, percent in sorted(percent_by_package().items()):
        floor = FLOORS[package]
        below += percent < floor
        print(f"{package:<12} {percent:5.1f} %, floor {floor} %{'  TOO LOW' if percent < floor else ''}")
    sys.exit(1 if below else 0)


if __name__ == "__main__":
    main()
