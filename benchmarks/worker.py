"""Steps per second of a worker process, and the age of its chunks, beside busy Python threads of its parent.

    python -m benchmarks.worker [--streams 1 16 64] [--busy 0 1 2] [--steps 600] [--step-ms 3] [--switch-ms 1]

The model sleeps in each step, as a GPU would compute. Each stream gets half a second of audio (88 kB) every
eleven steps, the next one a step after the last. Streams are read on an event loop; "busy" threads compute in
Python beside it. Both times of a chunk's age are of the machine's monotonic clock.
"""

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise

from benchmarks.sleeping import sleeping
from dia_server.engine.engine import Engine
from dia_server.engine.types import Chunk, Utterance
from dia_server.engine.workers import SWITCH_S

SAMPLES = 43 * 512
STEPS_PER_CHUNK = 11


@contextmanager
def busy_threads(count: int) -> Iterator[None]:
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=compute) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@asynccontextmanager
async def started(slots: int, step_s: float) -> AsyncIterator[Engine]:
    load_model = sleeping(slots, step_s, SAMPLES, STEPS_PER_CHUNK)
    engine = Engine("dia", load_model, max_waiting=slots, own_process=True)
    engine.start()
    while not engine.ready:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.stop)


async def stream(engine: Engine, steps: int) -> tuple[list[Chunk], list[float]]:
    """Return the chunks of one utterance, and their ages in milliseconds when they were read."""
    chunks, ages = [], []
    utterance = Utterance("Hello.", voice="", seed=0, max_tokens=steps)
    async with engine.submit(utterance, background=True) as generation:
        async for chunk in generation:
            ages.append(1000 * (time.monotonic() - chunk.progress))
            chunks.append(chunk)
    return chunks, ages


async def measure(streams: int, busy: int, steps: int, step_s: float) -> str:
    """Run `streams` at once; return a row of the table."""
    async with started(streams + streams // 7 + 1, step_s) as engine:
        await stream(engine, STEPS_PER_CHUNK)
        with busy_threads(busy):
            made = await asyncio.gather(*[stream(engine, steps) for _ in range(streams)])
    rates = [
        (one.tokens - other.tokens) / (other.progress - one.progress)
        for chunks, _ in made
        for one, other in pairwise([chunks[0], chunks[-1]])
    ]
    ages = sorted(age for _, some in made for age in some)
    p95 = ages[int(0.95 * (len(ages) - 1))]
    rate = statistics.median(rates)
    return f"| {streams} | {busy} | {rate:.0f} | {statistics.median(ages):.1f} | {p95:.1f} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64])
    arguments.add_argument(
        "--busy", type=int, nargs="+", default=[0, 1, 2], help="busy threads in the parent"
    )
    arguments.add_argument("--steps", type=int, default=600, help="steps of each utterance")
    arguments.add_argument("--step-ms", type=float, default=3.0, help="milliseconds that a step takes")
    arguments.add_argument(
        "--switch-ms", type=float, default=1000 * SWITCH_S, help="the interpreter's switch interval"
    )
    given = arguments.parse_args()
    sys.setswitchinterval(given.switch_ms / 1000)
    print(
        "| streams | busy threads | steps/s | age of a chunk, median, ms | p95, ms |\n|---|---|---|---|---|"
    )
    for streams in given.streams:
        for busy in given.busy:
            row = measure(streams, busy, given.steps, given.step_ms / 1000)
            print(asyncio.run(row), flush=True)


if __name__ == "__main__":
    main()
