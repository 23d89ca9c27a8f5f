"""Time to first audio, total time and late chunks under random arrivals, through the whole `Engine`.

    python -m benchmarks.latency --device cuda --size 1.6B --slots 64 --codec
    python -m benchmarks.latency --size toy --seconds 2 4      a CPU, without the codec
    python -m benchmarks.latency --size toy --voices           a recording and an anchor, in turns

The capacity (all slots full) is measured first; then requests arrive as a Poisson process at shares of it. A
chunk is late if it arrives after playback of all earlier chunks would have ended; playback starts with the
first chunk.

`--voices` measures the time to first audio of a voice with a recording, and of one with an anchor of the same
length, in turns on an idle engine.
"""

import argparse
import asyncio
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.arrivals import StreamTiming, arrive, capacity, listen, random_loader, started, utterances
from benchmarks.limits import describe_machine
from benchmarks.models import SIZES
from dia_server.engine.dia.codec import CODEBOOKS
from dia_server.engine.types import GeneratedAudio, Recording, VoicePrompt
from dia_server.units import FRAME_RATE, HOP

PROMPT_S = 9.0
"""Seconds of the prompts that `--voices` compares: the length of an anchor."""


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    report = asyncio.run(compare_voices(options) if options.voices else run(options))
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
    parser.add_argument("--voices", action="store_true", help="compare a recording with an anchor")
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


async def compare_voices(options: argparse.Namespace) -> dict[str, Any]:
    engine = await started(random_loader(options.size, options.device, 1, codec=options.codec), 1)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 1024, (round(PROMPT_S * FRAME_RATE), CODEBOOKS), np.int16)
    noise = rng.normal(0, 0.1, len(frames) * HOP).astype(np.float32)
    parts: dict[str, Recording | GeneratedAudio] = {
        "recording": Recording(noise, "noise"),
        "anchor": GeneratedAudio(frames),
    }
    first: dict[str, list[float]] = {name: [] for name in parts}
    try:
        for number, utterance in enumerate(utterances(options.requests, (2.0, 2.0))):
            for name, part in parts.items():
                prompt = VoicePrompt((part,), "[S1] " + "hello " * 20)
                timing = await listen(engine, replace(utterance, prompt=prompt))
                if number:  # the first one encodes the recording
                    first[name].append(1000 * timing.first)
    finally:
        await asyncio.to_thread(engine.stop)
    medians = {f"{name}_p50_ms": statistics.median(times) for name, times in first.items()}
    pairs = zip(first["anchor"], first["recording"], strict=True)
    ratio = statistics.median(anchor / recording for anchor, recording in pairs)
    return {"machine": describe_machine(options.device), **medians, "anchor_to_recording": ratio}


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
