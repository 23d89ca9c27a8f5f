"""Load of 16 concurrent clients on a server with the preview engine.

    python -m benchmarks.load [--seconds 60] [--clients 16]

Prints requests, errors, latencies, latencies of `/health` under load, and memory before and after. Exits with
status 1 if a request failed with any status but 429 or 503, memory grew by more than 5 %, or `/health` took
more than 50 ms at the 99th percentile.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.live.server import Server

TEXTS = [
    "Hello, world!",
    "[S1] Did you hear that? [S2] Hear what? [S1] Never mind, it must have been the wind.",
    "A longer paragraph keeps the engine busy for a while. " * 12,
]
REFUSALS = {429, 503}


@dataclass
class LoadStats:
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)


async def client(url: str, until: float, stats: LoadStats, rng: random.Random) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as session:
        while time.monotonic() < until:
            body = {"text": rng.choice(TEXTS), "voice_id": rng.choice(["aria", "atlas", "luna"])}
            body["response_format"] = rng.choice(["wav", "mp3"])
            started = time.perf_counter()
            answer = await session.post("/generate", json=body)
            stats.latencies.append(time.perf_counter() - started)
            stats.statuses[answer.status_code] += 1


async def probe(url: str, until: float, stats: LoadStats) -> None:
    async with httpx.AsyncClient(base_url=url) as session:
        while time.monotonic() < until:
            started = time.perf_counter()
            (await session.get("/health")).raise_for_status()
            stats.health.append(time.perf_counter() - started)
            await asyncio.sleep(0.05)


async def load(url: str, clients: int, seconds: float) -> LoadStats:
    stats, until = LoadStats(), time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(url, until, stats, random.Random(number)))
        group.create_task(probe(url, until, stats))
    return stats


def resident_mb(server: Server) -> float:
    """Return the resident memory of the server's child processes in MB."""
    assert server.process is not None
    parent = server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in children)
    return pages * 4096 / 1e6


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] * 1000


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--clients", type=int, default=16)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), rate_limit_generate=0) as server:
        asyncio.run(load(server.url, given.clients, 30))  # warms up caches and pools
        before = resident_mb(server)
        stats = asyncio.run(load(server.url, given.clients, given.seconds))
        after = resident_mb(server)
    requests = sum(stats.statuses.values())
    errors = sum(
        count for status, count in stats.statuses.items() if status != 200 and status not in REFUSALS
    )
    refused = sum(stats.statuses[status] for status in REFUSALS)
    health_p99 = percentile(stats.health, 0.99)
    growth = after / before - 1
    print(f"clients   {given.clients}, {given.seconds:.0f} s")
    print(f"requests  {requests} ({requests / given.seconds:.1f}/s), refused {refused}, errors {errors}")
    print(
        f"latency   p50 {percentile(stats.latencies, 0.5):.0f} ms, "
        f"p99 {percentile(stats.latencies, 0.99):.0f} ms"
    )
    print(
        f"/health   p50 {percentile(stats.health, 0.5):.1f} ms, p99 {health_p99:.1f} ms ({len(stats.health)})"
    )
    print(f"memory    {before:.1f} MB before, {after:.1f} MB after ({growth:+.1%})")
    return int(errors > 0 or growth > 0.05 or health_p99 > 50)


if __name__ == "__main__":
    sys.exit(main())
