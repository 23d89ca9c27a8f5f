"""Speed of a long text whose segments run in parallel, relative to the same segments one by one.

    python -m benchmarks.longform [--size toy] [--rounds 3] [--threads 1]

The server's planner cuts a story of 2,200 characters into segments. A random Dia on the CPU, without the
codec, generates them twice: in an engine with one slot per segment, and in an engine with a single slot. Each
segment runs to its estimated length. Both are measured with a voice prompt, whose frames are cached, and
without, where the first segment is the prompt of the others. Retries are off, because the guard would reject
the hum that replaces the codec. Exits with status 1 if the median share of the time is more than 0.25 with a
prompt, or 0.35 without.

The default model is tiny because one CPU core gains little from batching a larger one: it is compute-bound
from about 8 rows on, whereas a GPU is memory-bound up to a hundred rows.
"""

import argparse
import asyncio
import sys
import time
from contextlib import aclosing
from dataclasses import replace
from statistics import median

import numpy as np
import torch

from benchmarks.arrivals import random_loader, started
from benchmarks.models import TEMPERATURE
from dia_server.engine.engine import Engine
from dia_server.engine.types import Recording, Utterance, VoicePrompt
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.narration import Narration
from dia_server.services.speech.narrator import Narrator
from dia_server.services.speech.usage import UsageMeter
from dia_server.text.budget import columns
from dia_server.text.plan import Plan, PromptSize, plan
from dia_server.units import FRAME_RATE, SAMPLE_RATE

PROMPT_S = 5.0
TARGETS = {True: 0.25, False: 0.35}
"""Maximum share of the time, with (True) and without (False) a voice prompt."""

STORY = """
[S1] The ferry to the island leaves twice a day, and in winter only if the captain likes the look of the
water. On the morning I arrived he did not. He stood on the pier with his hands in his pockets, studied
the grey line where the sea met the sky, and shook his head at nobody in particular. So I waited. There
was a small cafe behind the ticket office, with fogged windows and a radio that nobody had turned off
since the summer. The woman at the counter put a cup of tea in front of me before I had asked for
anything. She said that people who came in at that hour always wanted tea, and that the ones who wanted
coffee never came by boat. I asked her how long the weather might last. She looked at the ceiling, as if
the answer were written there, and said that it would last as long as it lasted. Her brother had once
waited nine days. He had read every newspaper in the place, learned to play chess from a man who sold
rope, and in the end he had married the man's daughter and never crossed at all. After the second cup I
went for a walk along the harbour. The boats were pulled up on the stones and covered with green cloth,
which snapped and filled in the wind like a row of sleeping animals that breathe. Somebody had painted
the name of every boat by hand, each in letters of a different kind, and most of them were the names of
women. One was called Patience. I thought that this was either a joke or a piece of advice, and sat down
beside it, out of the wind. An old man came by with a bucket, nodded at the sky, and told me that it
would clear at four. I asked how he knew. He pointed at a gull that was standing on one leg on the roof
of the ice house. When that bird puts its other foot down, he said, the captain starts his engine. I do
not know why, and I have never asked. At ten minutes to four the gull put its foot down. By five we were
halfway across, and behind us the lamps of the harbour came on, one after the other, without any hurry.
The captain let me stand beside him. I told him about the gull. He laughed for so long that he had to
hold on to the wheel, and then he said that he had never once looked at a bird in his life.
"""


def script(prompt: VoicePrompt | None) -> Plan:
    """Return the story's plan with `max_tokens` per segment, because random weights never emit EOS."""
    frames = round(PROMPT_S * FRAME_RATE) if prompt else 0
    size = PromptSize(prompt.transcript if prompt else "", frames)
    cut = plan(" ".join(STORY.split()), lambda _: size)
    return replace(
        cut,
        utterances=tuple(replace(one, max_tokens=columns(one.estimated_s)) for one in cut.utterances),
    )


async def narrate(engine: Engine, wanted: Plan, base: Utterance) -> tuple[float, float]:
    """Return the seconds until the first audio and until the end."""
    begun, first = time.perf_counter(), 0.0
    narrator = Narrator(engine, retries=0, ahead_s=float("inf"))
    narration = Narration(narrator, wanted, base, Delivery(live=True), UsageMeter())
    async with aclosing(narration.play()) as playing:
        async for _ in playing:
            first = first or time.perf_counter() - begun
    return first, time.perf_counter() - begun


async def compare(many: Engine, one: Engine, rounds: int, prompt: VoicePrompt | None) -> float:
    """Measure both engines in turn, print the times and return the median share."""
    whole, shares = script(prompt), []
    base = Utterance("", "", seed=0, temperature=TEMPERATURE, prompt=prompt)
    name = "with a prompt" if prompt else "without one"
    lengths = ", ".join(f"{segment.estimated_s:.1f}" for segment in whole.utterances)
    print(f"{name}: {len(whole.utterances)} segments of {lengths} s", flush=True)
    for engine in (many, one):
        short = replace(whole.utterances[0], max_tokens=100)
        await narrate(engine, Plan((short,), 0.0), base)  # warms up
    for _ in range(rounds):
        first, together = await narrate(many, whole, base)
        _, apart = await narrate(one, whole, base)
        shares.append(together / apart)
        print(
            f"{name}: {together:.1f} s in parallel, {apart:.1f} s one by one: {shares[-1]:.3f}, "
            f"first chunk after {first:.2f} s",
            flush=True,
        )
    share = median(shares)
    print(f"{name}: {share:.3f} at the median, target at most {TARGETS[prompt is not None]}", flush=True)
    return share


async def run(given: argparse.Namespace) -> bool:
    """Return whether both targets are met."""
    torch.set_num_threads(given.threads)
    noise = np.random.default_rng(0).normal(0, 0.1, round(PROMPT_S * SAMPLE_RATE)).astype(np.float32)
    prompts = [VoicePrompt((Recording(noise, "noise"),), "[S1] So it sounds."), None]
    slots = max(len(script(prompt).utterances) for prompt in prompts)
    many, one = [
        await started(random_loader(given.size, "cpu", count, codec=False), max_waiting=slots)
        for count in (slots, 1)
    ]
    try:
        shares = [(prompt, await compare(many, one, given.rounds, prompt)) for prompt in prompts]
    finally:
        await asyncio.to_thread(many.stop)
        await asyncio.to_thread(one.stop)
    return all(share <= TARGETS[prompt is not None] for prompt, share in shares)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--size", default="toy")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=1)
    return int(not asyncio.run(run(arguments.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
