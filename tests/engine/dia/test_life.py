"""Dia inside the engine: loading, serving, cancelling, unloading and loading again."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from dia_server.engine.dia.loader import dia_loader
from dia_server.engine.engine import Engine
from dia_server.engine.types import Samples, Utterance

from .tiny import save_dac, save_dia, tiny_dia

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def speak(engine: Engine, seed: int, tokens: int = 60) -> Samples:
    async with engine.submit(Utterance("[S1] Hello.", "", seed=seed, max_tokens=tokens)) as generation:
        return np.concatenate([chunk.samples async for chunk in generation])


async def wait(engine: Engine, *, loaded: float) -> None:
    async with asyncio.timeout(20):
        while engine.loaded != loaded or not engine.ready:
            await asyncio.sleep(0.005)


async def test_dia_serves_is_cancelled_unloads_and_returns(tmp_path: Path) -> None:
    dia, dac = save_dia(tmp_path / "dia", tiny_dia(ends=False)), save_dac(tmp_path / "dac")
    load = dia_loader(str(dia), str(dac), device="cpu", dtype="float32", max_batch=2)
    engine = Engine("dia", load, max_waiting=10, idle_unload_s=0.3)
    engine.start()
    await wait(engine, loaded=1.0)
    assert engine.slots == 2
    first = await speak(engine, seed=1)
    assert len(first) == (60 - 16) * 512

    async with engine.submit(Utterance("[S1] On and on.", "", seed=2)) as endless:
        await anext(endless)
        together = await speak(engine, seed=1)
    after = await speak(engine, seed=1)
    assert (together == first).all()
    assert (after == first).all()
    assert engine.active == 0

    await wait(engine, loaded=0.0)
    again = await speak(engine, seed=1)
    assert (again == first).all()
    await asyncio.to_thread(engine.stop)
