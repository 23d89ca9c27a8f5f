"""Latency of concurrent writes, and responses refused because the database is locked.

    python -m benchmarks.writes [--requests 2000] [--clients 64]

Starts a server with the preview engine; each client adds jobs and voices in turn, while the jobs run and
finish. Exits with status 1 if a response is not 200.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from benchmarks.load import percentile
from tests.live.server import Server

JOB = {"text": "Hi."}


async def write(session: httpx.AsyncClient, number: int) -> str:
    """Send one write; return its status, with the error's `detail` unless it is 200."""
    if number % 2:
        answer = await session.post("/generate?async_mode=true", json=JOB)
    else:
        answer = await session.post("/voice_mappings", json={"voice_id": f"voice_{number % 100}"})
    return "200" if answer.status_code == 200 else f"{answer.status_code} {answer.json()['detail']}"


async def client(url: str, numbers: list[int], answers: Counter[str], latencies: list[float]) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=120) as session:
        while numbers:
            number = numbers.pop()
            started = time.perf_counter()
            answers[await write(session, number)] += 1
            latencies.append(time.perf_counter() - started)


async def measure(url: str, requests: int, clients: int) -> tuple[Counter[str], list[float]]:
    answers: Counter[str] = Counter()
    latencies: list[float] = []
    numbers = list(range(requests))
    await asyncio.gather(*(client(url, numbers, answers, latencies) for _ in range(clients)))
    return answers, latencies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), rate_limit_generate=0) as server:
        answers, latencies = asyncio.run(measure(server.url, given.requests, given.clients))
    for answer, count in answers.most_common():
        print(f"{count:6} {answer}")
    print(f"p50 {percentile(latencies, 0.5):.0f} ms, p99 {percentile(latencies, 0.99):.0f} ms")
    return int(set(answers) != {"200"})


if __name__ == "__main__":
    sys.exit(main())
