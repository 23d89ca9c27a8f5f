"""How quickly a server answers while texts that are hard to clean are planned.

python -m benchmarks.hostile [--seconds 30] [--rate 10]
"""

import argparse
import tempfile
import threading
import time
from itertools import cycle
from pathlib import Path

import numpy as np

from tests.live.server import Server

PATTERNS = [
    "[",
    "([",
    "*a ",
    "`a``",
    "<a ",
    "&",
    "|a|b|\n|-|-|\n",
    "> ",
    "1. ",
    "1,234,",
    "a.b.c.",
    "[voice:a] ",
    "[S3] ",
]
CHARACTERS = 4096
ASKED_PER_S = 50


def plan(server: Server, rate: float, stop: threading.Event) -> None:
    """Send `rate` hostile texts a second to /plan until `stop` is set, as far as the server keeps up."""
    due = time.monotonic()
    for pattern in cycle(PATTERNS):
        if stop.wait(max(0.0, due - time.monotonic())):
            return
        due += 1 / rate
        server.post("/plan", json={"text": (pattern * CHARACTERS)[:CHARACTERS]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=10.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        for rate in (0.0, given.rate):
            stop, times = threading.Event(), []
            planning = threading.Thread(target=plan, args=(server, rate, stop)) if rate else None
            if planning:
                planning.start()
            end = time.monotonic() + given.seconds
            while time.monotonic() < end:
                started = time.perf_counter()
                server.get("/health")
                times.append(1000 * (time.perf_counter() - started))
                time.sleep(1 / ASKED_PER_S)
            stop.set()
            if planning:
                planning.join()
            median, slow, slowest = np.percentile(times, [50, 99, 100])
            print(f"{rate:g} texts/s: median {median:.1f} ms, p99 {slow:.1f} ms, slowest {slowest:.1f} ms")


if __name__ == "__main__":
    main()
