"""What a cluster adds: its share of the ideal throughput, latency, and the gap when an engine is lost.

    python -m benchmarks.cluster [--replicas 1 2 4 8] [--seconds 12] [--rounds 3]

Needs the extra `cluster`. Runs a Ray cluster on loopback whose engines sleep instead of computing, so that a
machine without GPUs measures everything around the model.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.sleeping import sleeping
from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.cluster.engine import ClusterEngine
from dia_server.engine.cluster.types import ReplicaCount
from dia_server.engine.engine import Engine
from dia_server.engine.types import Flow, Utterance, Work
from tests.engine.cluster import ray_cluster
from tests.engine.cluster.connection import connected
from tests.waiting import until

SLOTS = 4
STEPS = 40
STEP_S = 0.05
SAMPLES = 11_025
"""Samples of a chunk, which each step makes: five times real time."""
VOICES = 16
PER_CLIENT = 10_000
"""Numbers of utterances of a client."""


@dataclass
class Measured:
    hops_ms: list[float] = field(default_factory=list)
    """From a chunk's making to its delivery."""
    first_s: list[float] = field(default_factory=list)
    """From submission to the first chunk."""
    gaps_s: list[float] = field(default_factory=list)
    """The longest time between two chunks of each utterance."""
    done: int = 0


async def speak(engine: AnyEngine, number: int, steps: int, measured: Measured) -> None:
    client = Flow(str(number // PER_CLIENT))  # of one client alone, the last two slots stay free
    utterance = Utterance("[S1] x", f"voice {number % VOICES}", number, max_tokens=steps, flow=client)
    async with engine.submit(utterance) as generation:
        gap, last = 0.0, None
        async for chunk in generation:
            now = time.monotonic()
            measured.hops_ms.append(1000 * (now - chunk.progress))
            gap, last = max(gap, now - (last or now)), now
    measured.gaps_s.append(gap)
    measured.first_s.append(generation.first_audio_s or 0.0)
    measured.done += 1


async def load(engine: AnyEngine, clients: int, seconds: float) -> Measured:
    """Let `clients` clients speak, each one utterance after another."""
    measured, until_s = Measured(), time.monotonic() + seconds

    async def client(number: int) -> None:
        count = 0
        while time.monotonic() < until_s:
            await speak(engine, number * PER_CLIENT + count, STEPS, measured)
            count += 1

    await asyncio.gather(*map(client, range(clients)))
    return measured


@asynccontextmanager
async def local() -> AsyncIterator[Engine]:
    engine = Engine("preview", sleeping(SLOTS, STEP_S, SAMPLES), max_waiting=4096)
    engine.start()
    await until(lambda: engine.ready)
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.stop)


@asynccontextmanager
async def clustered(address: str, replicas: int) -> AsyncIterator[ClusterEngine]:
    deploy(address, replicas)
    async with connected(address) as engine:
        await until(lambda: engine.worker_count == replicas, timeout_s=180)
        yield engine


def deploy(address: str, replicas: int) -> None:
    """Run this module with `--deploy` in a process of its own: Ray connects a process once."""
    command = [sys.executable, "-m", "benchmarks.cluster", "--deploy", address, str(replicas)]
    subprocess.run(command, check=True)


def show(name: str, **values: object) -> None:
    print(json.dumps({"measured": name, **values}), flush=True)


def percentiles(values: Sequence[float]) -> list[float]:
    """Return the median and the 99th percentile."""
    return [round(float(value), 3) for value in np.percentile(values, [50, 99])]


async def scaling(address: str, replicas: int, seconds: float) -> None:
    async with clustered(address, replicas) as engine:
        await compare(engine, replicas, seconds)


async def alone(seconds: float) -> None:
    async with local() as engine:
        await compare(engine, 0, seconds)


async def compare(engine: AnyEngine, replicas: int, seconds: float) -> None:
    """Measure an engine of `replicas` replicas (0: a local one) with as many clients as slots, then half."""
    slots = max(1, replicas) * SLOTS
    started, before = time.monotonic(), engine.work + Work()  # a copy: a local engine counts on
    full = await load(engine, slots, seconds)
    elapsed, after = time.monotonic() - started, engine.work + Work()
    half = await load(engine, slots // 2, seconds)
    steps = after.steps - before.steps
    show(
        "scaling" if replicas else "local",
        replicas=replicas,
        share_of_ideal=round(full.done * STEPS * STEP_S / elapsed / slots, 3),
        slots_busy=round((after.slot_steps - before.slot_steps) / steps / SLOTS, 3),
        hop_ms=percentiles(full.hops_ms),
        first_audio_s=percentiles(full.first_s),
        hop_at_half_ms=percentiles(half.hops_ms),
        first_audio_at_half_s=percentiles(half.first_s),
    )


def has_begun(measured: Measured) -> bool:
    return len(measured.hops_ms) > 40


async def gaps(address: str, fault: signal.Signals, rounds: int) -> None:
    """Lose one of two engines while four utterances run."""
    found = []
    async with clustered(address, 2) as engine:
        for _ in range(rounds):
            measured = Measured()
            speaking = [asyncio.create_task(speak(engine, n * PER_CLIENT, 200, measured)) for n in range(4)]
            await until(partial(has_begun, measured))
            victim = ray_cluster.replicas()[0]
            os.kill(victim, fault)
            await asyncio.gather(*speaking)
            found.append(max(measured.gaps_s))
            os.kill(victim, signal.SIGKILL) if victim in ray_cluster.replicas() else None
            await until(lambda: len(ray_cluster.replicas()) == 2 and engine.worker_count == 2, timeout_s=180)
    show("gap", fault=fault.name, longest_s=round(max(found), 2), median_s=round(statistics.median(found), 2))


async def freed(address: str, rounds: int) -> None:
    """Kill a server whose utterances hold slots; measure until they are free."""
    found = []
    async with clustered(address, 2) as engine:
        for _ in range(rounds):
            command = [sys.executable, "-m", "benchmarks.cluster", "--hold", address]
            server = await asyncio.create_subprocess_exec(*command)
            await until(lambda: sum(state.busy for state in engine.cluster.replicas) == 6)
            server.kill()
            started = time.monotonic()
            await until(lambda: not sum(state.busy for state in engine.cluster.replicas))
            found.append(time.monotonic() - started)
            await server.wait()
    show(
        "slots of a killed server are free",
        longest_s=round(max(found), 2),
        median_s=round(statistics.median(found), 2),
    )


async def hold(address: str) -> None:
    """Speak six utterances until this process is killed."""
    async with connected(address) as engine:
        await asyncio.gather(*(speak(engine, n * PER_CLIENT, 100_000, Measured()) for n in range(6)))


async def measure(options: argparse.Namespace, address: str) -> None:
    await alone(options.seconds)
    for replicas in options.replicas:
        await scaling(address, replicas, options.seconds)
    await gaps(address, signal.SIGKILL, options.rounds)
    await gaps(address, signal.SIGSTOP, options.rounds)
    await freed(address, options.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deploy", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.deploy:
        from dia_server.engine.cluster import deploy as cluster

        address, count = options.deploy[0], int(options.deploy[1])
        replicas = ReplicaCount(count, count)
        cluster.deploy(
            address,
            "preview",
            sleeping(SLOTS, STEP_S, SAMPLES),
            replicas=replicas,
            slots=SLOTS,
            columns=0,
            gpus=0,
        )
    elif options.hold:
        asyncio.run(hold(options.hold))
    else:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        with ray_cluster.ray_cluster(cpus=max(options.replicas)) as address:
            asyncio.run(measure(options, address))


if __name__ == "__main__":
    main()
