"""The engine as the server runs it on CUDA: in a worker process, with the codec and all slots."""

import asyncio
import statistics
import time

from benchmarks.arrivals import arrive, capacity, listen, random_loader, started, utterances
from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup
from benchmarks.latency import summary
from dia_server.engine.engine import Engine

MOST_WAITING = 256


def run(setup: Setup, report: Report) -> None:
    asyncio.run(_serve(setup, report))


async def _serve(setup: Setup, report: Report) -> None:
    start = time.perf_counter()
    load = random_loader(setup.size, setup.device, setup.most_slots, codec=True)
    engine = await started(load, MOST_WAITING, own_process=True)
    try:
        report.measured("start of the worker", time.perf_counter() - start, "s", slots=engine.slots)
        report.no_fallback(engine.notes)
        await _measure(setup, report, engine)
    finally:
        await asyncio.to_thread(engine.stop)


async def _measure(setup: Setup, report: Report, engine: Engine) -> None:
    """Report latency of single requests, capacity, and latency at half of the capacity."""
    short, usual = ((3.0, 3.0), (5.0, 15.0)) if setup.on_gpu else ((0.5, 0.5), (0.5, 1.0))

    def target(value: float) -> float | None:
        return value if setup.has_targets else None

    await listen(engine, utterances(1, short)[0])  # warms up
    alone = [await listen(engine, one) for one in utterances(5, short)]
    first = 1000 * statistics.median(one.first for one in alone)
    report.measured("first audio, one request", first, "ms", at_most=target(60.0))

    await capacity(engine, utterances(engine.slots, usual))  # warms up
    full = await asyncio.gather(*(listen(engine, one) for one in utterances(engine.slots, usual, seed=1)))
    slowest = min(one.audio / one.total for one in full)
    what = f"the slowest of {engine.slots} streams, times real time"
    report.measured(what, slowest, "x", at_least=target(1.0))

    most = await capacity(engine, utterances(2 * engine.slots, usual))
    report.measured("capacity, times real time", most, "x")
    half = summary(
        await arrive(engine, utterances(2 * engine.slots, usual), 0.5 * most / statistics.mean(usual))
    )
    late = half["late_chunks_percent"]
    report.measured(
        "first audio at half of capacity, p95", half["first_audio_p95_ms"], "ms", at_most=target(150.0)
    )
    report.measured("late chunks at half of capacity", late, "%", at_most=target(0.0), **half)
