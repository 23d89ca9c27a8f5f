"""Server overhead relative to the engine's steps, and occupancy of the batch.

    python -m benchmarks.serving [--size 115M] [--slots 8] [--clients 16] [--requests 48]

A random Dia runs on one CPU thread behind Granian in this process; the clients run in another process. The
overhead is this process's CPU time minus that of the engine thread's steps. Occupancy counts only steps that
begin while an utterance is queued. Exits with status 1 if the overhead is 5 % of a step or more, or the
occupancy 90 % or less.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
import torch
from granian.constants import Interfaces
from granian.server.embed import Server

from benchmarks.arrivals import random_loader
from dia_server.app import create_app
from dia_server.engine.dia.model import STEPS_PER_POLL
from dia_server.engine.engine import Engine
from dia_server.engine.types import Chunk, Model
from dia_server.settings import Settings

PORT = 17861
TOKENS = 128


class Meter:
    """Records each poll's CPU time, of its thread only, and the share of busy slots."""

    def __init__(self) -> None:
        self.step_s = 0.0
        self.polls = 0
        self.occupied: list[float] = []
        self.engine: Engine | None = None

    def wrap(self, model: Model) -> Model:
        step = model.step

        def measured() -> Mapping[int, Chunk | Exception]:
            assert self.engine is not None
            busy = len(self.engine._busy)
            if self.engine.active > busy:
                self.occupied.append(busy / model.slots)
            started = time.thread_time()
            outcomes = step()
            self.step_s += time.thread_time() - started
            self.polls += 1
            return outcomes

        model.step = measured  # type: ignore[method-assign]
        return model


def ask(number: int) -> float:
    body = {"text": f"Request number {number} says a sentence.", "seed": number, "max_tokens": TOKENS}
    started = time.perf_counter()
    httpx.post(f"http://127.0.0.1:{PORT}/generate", json=body, timeout=600).raise_for_status()
    return time.perf_counter() - started


def clients(count: int, requests: int) -> list[float]:
    """Send the requests and return the seconds of each; runs in a separate process."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(ask, range(requests)))


async def run(given: argparse.Namespace) -> tuple[Meter, float, list[float]]:
    meter = Meter()
    load = random_loader(given.size, "cpu", given.slots, codec=False)

    def load_measured(report: Callable[[float], None]) -> Model:
        torch.set_num_threads(1)
        return meter.wrap(load(report))

    with tempfile.TemporaryDirectory() as folder:
        meter.engine = engine = Engine("dia", load_measured, max_waiting=256)
        app = create_app(Settings(data_dir=folder, rate_limit_generate=0, log_level="warning"), engine)
        server = Server(app, port=PORT, interface=Interfaces.ASGI, log_enabled=False)
        serving = asyncio.create_task(server.serve())
        while not engine.ready:  # noqa: ASYNC110 - it is another thread that gets ready
            await asyncio.sleep(0.1)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            await asyncio.to_thread(
                pool.apply, clients, (1, 2)
            )  # the first requests fill caches, and import httpx
            meter.step_s, meter.polls, meter.occupied = 0.0, 0, []
            before = time.process_time()
            waiting = pool.apply_async(clients, (given.clients, given.requests))
            times = await asyncio.to_thread(waiting.get)
            spent = time.process_time() - before
        server.stop()  # type: ignore[no-untyped-call]
        await serving
    return meter, spent - meter.step_s, times


def main() -> int:
    arguments = argparse.ArgumentParser(description="Server overhead relative to the engine's steps")
    arguments.add_argument("--size", default="115M")
    arguments.add_argument("--slots", type=int, default=8)
    arguments.add_argument("--clients", type=int, default=16)
    arguments.add_argument("--requests", type=int, default=48)
    meter, own_s, times = asyncio.run(run(arguments.parse_args()))
    steps = meter.polls * STEPS_PER_POLL
    share, occupancy = own_s / meter.step_s, statistics.mean(meter.occupied)
    print(f"requests       {len(times)}, median {statistics.median(times):.2f} s")
    print(f"a step         {meter.step_s / steps * 1000:.2f} ms of CPU time")
    print(f"server's own   {own_s / steps * 1000:.3f} ms a step, {share:.1%} of it")
    print(f"occupancy      {occupancy:.1%} of slots while work waits ({len(meter.occupied)} polls)")
    return int(share >= 0.05 or occupancy <= 0.9)


if __name__ == "__main__":
    sys.exit(main())
