"""A long text in one request against its pieces, asked for one after another.

    python -m benchmarks.longform [--size tiny] [--pieces 10] [--seconds 3] [--rounds 1]

A random Dia on the CPU, without the codec, whose pieces all run to the same length. Once with a voice
prompt, whose frames are computed before; once without, where the first piece is the prompt of the others.
The guard is off: it would find nothing but faults in a hum. Ends with status 1 where the text takes more
than 0.25 of its pieces with a prompt, or 0.35 without.
"""

import argparse
import asyncio
import sys
import time
from contextlib import aclosing

import numpy as np
import torch

from benchmarks.arrivals import random_loader, started
from benchmarks.models import TEMPERATURE
from dia_server.engine.engine import Engine
from dia_server.engine.types import SAMPLE_RATE, Utterance, VoicePrompt
from dia_server.services.narrator import Narrator
from dia_server.text.budget import columns
from dia_server.text.plan import Plan, PlannedUtterance

PROMPT_S = 5.0
TARGETS = {True: 0.25, False: 0.35}
"""By whether there is a voice prompt."""


def plan(first: int, count: int, seconds: float) -> Plan:
    """Texts of the length that such an audio has."""
    letters = "abcdefghi " * round(1.5 * seconds)
    return Plan(
        tuple(
            PlannedUtterance(f"[S1] {n} {letters}", ".", 0.3, seconds, columns(seconds))
            for n in range(first, first + count)
        ),
        0.0,
    )


async def narrate(narrator: Narrator, wanted: Plan, base: Utterance) -> tuple[float, float]:
    """Seconds until the first audio and until the end."""
    begun, first = time.perf_counter(), 0.0
    async with aclosing(narrator.narrate(wanted, base, live=True)) as narration:
        async for _ in narration:
            first = first or time.perf_counter() - begun
    return first, time.perf_counter() - begun


async def compare(engine: Engine, given: argparse.Namespace, prompt: VoicePrompt | None) -> float:
    """Measure both ways, print them and return the better round's share."""
    narrator, shares = Narrator(engine, retries=0), []
    base = Utterance("", "", seed=0, temperature=TEMPERATURE, prompt=prompt)
    await narrate(narrator, plan(0, 1, 1.0), base)  # fills caches
    for _ in range(given.rounds):
        first, together = await narrate(narrator, plan(0, given.pieces, given.seconds), base)
        apart = 0.0
        for n in range(given.pieces):
            apart += (await narrate(narrator, plan(n, 1, given.seconds), base))[1]
        shares.append(together / apart)
        name = "with a prompt" if prompt else "without one"
        print(
            f"{name:<14} {together:6.1f} s in one text, {apart:6.1f} s one by one: {shares[-1]:.3f} "
            f"(at most {TARGETS[prompt is not None]}), first chunk after {first:.2f} s",
            flush=True,
        )
    return min(shares)


async def run(given: argparse.Namespace) -> bool:
    """Whether both targets are reached."""
    torch.set_num_threads(given.threads)
    load = random_loader(given.size, "cpu", given.pieces, codec=False)
    engine = await started(load, max_waiting=given.pieces)
    try:
        noise = np.random.default_rng(0).normal(0, 0.1, round(PROMPT_S * SAMPLE_RATE)).astype(np.float32)
        prompts = [VoicePrompt(noise, "[S1] So it sounds.", "noise"), None]
        shares = [(prompt, await compare(engine, given, prompt)) for prompt in prompts]
    finally:
        await asyncio.to_thread(engine.stop)
    return all(share <= TARGETS[prompt is not None] for prompt, share in shares)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--size", default="tiny")
    arguments.add_argument("--pieces", type=int, default=10)
    arguments.add_argument("--seconds", type=float, default=3, help="of audio in each piece")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--threads", type=int, default=1)
    return int(not asyncio.run(run(arguments.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
