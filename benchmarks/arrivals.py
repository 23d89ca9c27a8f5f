"""Runs an `Engine` with a random Dia, and submits requests to it as a Poisson process."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import LongTensor
from transformers import DacConfig, DacModel

from benchmarks.models import TEMPERATURE, random_weights
from dia_server.engine.dia.background_stream import use_device
from dia_server.engine.dia.codec import CODEBOOKS, Codec
from dia_server.engine.dia.loader import count_slots, pick_device
from dia_server.engine.dia.memory import device_memory
from dia_server.engine.dia.model import AudioCodec, DiaModel, ModelOptions
from dia_server.engine.dia.probe import kernel_fault
from dia_server.engine.dia.windows import Window
from dia_server.engine.engine import Engine
from dia_server.engine.types import Flow, LoadModel, Samples, Utterance
from dia_server.units import FRAME_RATE, HOP, SAMPLE_RATE


class Hum:
    """Replaces the codec on slow machines: audio of the right length that is not silent."""

    def encode(self, samples: Samples) -> LongTensor:
        return torch.zeros(-(-len(samples) // HOP), CODEBOOKS).long()  # type: ignore[return-value]

    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        return [np.full(window.n * HOP, 0.1, np.float32) for window in windows]

    def warm_up(self, most: int) -> None:
        pass


TOY_CODEC: dict[str, Any] = {"encoder_hidden_size": 4, "decoder_hidden_size": 32}
"""Differences of the codec of size "toy" from the real config."""


def random_dac(size: str) -> DacModel:
    """Return a codec with random weights: 76.6 M parameters, or few for a model of size "toy"."""
    return DacModel(DacConfig(sampling_rate=SAMPLE_RATE, **(TOY_CODEC if size == "toy" else {})))


def random_loader(size: str, device: str, slots: int, *, codec: bool) -> LoadModel:
    """Return a loader, which can be pickled, of a random Dia in the dtype that the server would choose.

    There are fewer than `slots` slots if memory is short, as in the server. Without `codec`, its place is
    taken by `Hum`.
    """
    return partial(_load_random, size=size, device=device, slots=slots, codec=codec)


def _load_random(
    report: Callable[[float], None], *, size: str, device: str, slots: int, codec: bool
) -> DiaModel:
    where = pick_device(device)
    on_cuda = where.type == "cuda"
    if on_cuda:
        use_device(where)
    weights = random_weights(size, device, slots)
    fault = kernel_fault(where, weights.dtype) if on_cuda else None
    audio: AudioCodec = Codec(random_dac(size), where, kernels=fault is None) if codec else Hum()
    memory = device_memory(where)
    slots = count_slots(weights.config, weights.dtype, slots, memory)
    options = ModelOptions(compiled=on_cuda, kernel_fault=fault, prompt_bytes=memory.prompt_bytes)
    model = DiaModel(weights, audio, slots, options, report=report)
    if on_cuda:
        model.warm_up()
    return model


async def started(load: LoadModel, max_waiting: int, *, own_process: bool = False) -> Engine:
    engine = Engine("dia", load, max_waiting=max_waiting, own_process=own_process)
    engine.start()
    while not engine.ready:
        if engine.error is not None:
            raise engine.error
        await asyncio.sleep(0.05)
    return engine


@dataclass(slots=True)
class StreamTiming:
    """Times of one stream, in seconds since its request."""

    first: float = 0.0
    total: float = 0.0
    audio: float = 0.0
    """Seconds of audio received."""
    chunks: int = 0
    late: int = 0
    """Chunks that arrived after playback of all earlier ones would have ended."""
    gaps: list[float] = field(default_factory=list)
    """Seconds between successive chunks."""


async def listen(engine: Engine, utterance: Utterance) -> StreamTiming:
    timing, start = StreamTiming(), time.perf_counter()
    previous = 0.0
    async with engine.submit(utterance) as generation:
        async for chunk in generation:
            now = time.perf_counter() - start
            if not len(chunk.samples):
                continue
            if timing.chunks == 0:
                timing.first = now
            else:
                timing.late += now > timing.first + timing.audio
                timing.gaps.append(now - previous)
            previous = now
            timing.chunks += 1
            timing.audio += len(chunk.samples) / SAMPLE_RATE
    timing.total = time.perf_counter() - start
    return timing


def utterances(count: int, seconds: tuple[float, float], seed: int = 0) -> list[Utterance]:
    """Return `count` random utterances of `seconds` (from, to), at 15 characters per second of speech.

    Each has a client of its own: one client is not given the last free slots.
    """
    rng = random.Random(seed)
    found = []
    for i in range(count):
        length = rng.uniform(*seconds)
        text = "[S1] " + "".join(rng.choices("abcdefghij ", k=int(15 * length)))
        steps = int(length * FRAME_RATE) + 16
        found.append(
            Utterance(text, "", seed=i, temperature=TEMPERATURE, max_tokens=steps, flow=Flow(str(i)))
        )
    return found


async def arrive(engine: Engine, work: list[Utterance], rate: float, seed: int = 0) -> list[StreamTiming]:
    """Submit `work` as a Poisson process of `rate` requests per second; return the times of each stream."""
    rng = random.Random(seed)
    tasks = []
    for utterance in work:
        tasks.append(asyncio.create_task(listen(engine, utterance)))
        await asyncio.sleep(rng.expovariate(rate))
    return await asyncio.gather(*tasks)


async def capacity(engine: Engine, work: list[Utterance]) -> float:
    """Return the seconds of audio generated per second when all of `work` is submitted at once."""
    start = time.perf_counter()
    timings = await asyncio.gather(*(listen(engine, utterance) for utterance in work))
    return sum(one.audio for one in timings) / (time.perf_counter() - start)
