"""The real model in worker processes: two CPU engines stand for two GPUs."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dia_server.engine.dia.loader import dia_loader
from dia_server.engine.engine import Engine
from dia_server.engine.pool import EnginePool
from dia_server.engine.types import Model, Recording, Samples, Utterance, VoicePrompt
from tests.engine.dia.tiny import save_dac, save_dia, tiny_dia


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def load(report: Callable[[float], None], *, folder: Path) -> Model:
    models = str(folder / "dia"), str(folder / "dac")
    return dia_loader(*models, device="cpu", dtype="float32", max_batch=2)(report)


async def speak(engine: Engine | EnginePool, work: list[Utterance]) -> list[Samples]:
    async def one(utterance: Utterance) -> Samples:
        async with engine.submit(utterance) as generation:
            return np.concatenate([chunk.samples async for chunk in generation])

    return await asyncio.gather(*map(one, work))


@pytest.mark.full
async def test_two_engines_generate_what_one_would(tmp_path: Path) -> None:
    save_dia(tmp_path / "dia", tiny_dia(ends=False))
    save_dac(tmp_path / "dac")
    noise = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    voices = [None, VoicePrompt((Recording(noise, "noise"),), "[S1] Hm.")]
    work = [
        Utterance(f"[S1] Number {i}.", voice="", seed=i, max_tokens=40, prompt=voices[i % 2])
        for i in range(6)
    ]
    here = Engine("dia", partial(load, folder=tmp_path), max_waiting=8)
    there = [Engine("dia", partial(load, folder=tmp_path), max_waiting=8, own_process=True) for _ in range(2)]
    pool = EnginePool("dia", lambda: there)
    here.start()
    pool.start()
    while here.loaded < 1 or pool.loaded < 1:
        assert here.error is None
        assert pool.error is None
        await asyncio.sleep(0.05)

    expected, made = await speak(here, work), await speak(pool, work)

    assert pool.slots == 4
    for one, other in zip(expected, made, strict=True):
        assert len(one) == 24 * 512
        assert np.array_equal(one, other)
    await asyncio.to_thread(here.stop)
    await asyncio.to_thread(pool.stop)
