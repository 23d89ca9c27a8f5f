"""Time to first audio, total time and late chunks under random arrivals, through the whole `Engine`.

    python -m benchmarks.latency --device cuda --size 1.6B --slots 64 --codec
    python -m benchmarks.latency --size toy --seconds 2 4      a CPU, without the codec

The capacity (all slots full) is measured first; then requests arrive as a Poisson process at shares of it. A
chunk is late if it arrives after playback of all earlier chunks would have ended; playback starts with the
first chunk.
"""

import argparse
import asyncio
import json
import math
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.arrivals import StreamTiming, arrive, capacity, random_loader, started, utterances
from benchmarks.limits import describe_machine
from benchmarks.models import SIZES


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    report = asyncio.run(run(options))
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default="115M")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--codec", action="store_true", help="decode for real, with a random codec")
    parser.add_argument("--seconds", type=float, nargs=2, default=(5.0, 15.0), help="of speech, from and to")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.5, 0.8], help="of capacity")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


async def run(options: argparse.Namespace) -> dict[str, Any]:
    load = random_loader(options.size, options.device, options.slots, codec=options.codec)
    engine = await started(load, options.requests)
    try:
        seconds = tuple(options.seconds)
        await capacity(engine, utterances(1, seconds))  # warms up
        most = await capacity(engine, utterances(2 * options.slots, seconds))
        rows = []
        for share in options.shares:
            rate = share * most / statistics.mean(seconds)
            timings = await arrive(engine, utterances(options.requests, seconds), rate)
            rows.append({"share_of_capacity": share, "requests_per_s": rate, **summary(timings)})
    finally:
        await asyncio.to_thread(engine.stop)
    return {"machine": describe_machine(options.device), "audio_s_per_s": most, "loads": rows}


def summary(timings: list[StreamTiming]) -> dict[str, float]:
    return {
        "first_audio_p50_ms": 1000 * quantile([one.first for one in timings], 0.5),
        "first_audio_p95_ms": 1000 * quantile([one.first for one in timings], 0.95),
        "total_p50_s": quantile([one.total for one in timings], 0.5),
        "total_p95_s": quantile([one.total for one in timings], 0.95),
        "real_time_p5": quantile([one.audio / one.total for one in timings], 0.05),
        "late_chunks_percent": 100 * sum(one.late for one in timings) / sum(one.chunks for one in timings),
        "longest_gap_ms": 1000 * max((gap for one in timings for gap in one.gaps), default=0.0),
    }


def quantile(values: list[float], share: float) -> float:
    """Return the smallest value that at least `share` of `values` do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


if __name__ == "__main__":
    main()
