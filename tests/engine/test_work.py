"""Counters of an engine, and its notifications about utterances that ended."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.engine import Engine
from dia_server.engine.generation import Generation
from dia_server.engine.pool import EnginePool
from dia_server.engine.types import Utterance, Work
from tests.tones import CHUNK, Gate, ToneModel, loader


def engine(gate: Gate) -> Engine:
    return Engine("preview", loader(ToneModel(slots=2, before_step=gate)), max_waiting=8)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def started(gate: Gate) -> AsyncIterator[tuple[Engine, list[Generation]]]:
    """A started engine, and the list of generations that ended."""
    one = engine(gate)
    ended: list[Generation] = []
    one.watch(ended.append)
    one.start()
    await ready(one)
    yield one, ended
    gate.open()
    await asyncio.to_thread(one.stop)


async def ready(engine: AnyEngine) -> None:
    async with asyncio.timeout(5):
        while engine.loaded < 1 or not engine.ready:
            await asyncio.sleep(0.001)


def submit(engine: AnyEngine, steps: int, *, background: bool = False) -> Generation:
    return engine.submit(Utterance("x" * steps, voice="aria", seed=0), background=background)


async def drain(*generations: Generation) -> None:
    for generation in generations:
        async for _ in generation:
            pass


async def test_slot_steps_by_steps_is_the_mean_batch(
    started: tuple[Engine, list[Generation]], gate: Gate
) -> None:
    engine, _ = started
    first = submit(engine, 30)
    gate.entered.wait(5)
    others = [submit(engine, 30), submit(engine, 20)]
    assert (engine.busy, engine.waiting(background=False)) == (1, 2)
    gate.open()
    await drain(first, *others)

    work = engine.work
    assert work.slot_steps == work.tokens == 80
    assert work.samples == 80 * len(CHUNK)
    assert work.slot_steps / 2 <= work.steps < work.slot_steps


async def test_the_end_of_each_utterance_is_reported_once_with_its_times(
    started: tuple[Engine, list[Generation]], gate: Gate
) -> None:
    engine, ended = started
    made, left, queued = submit(engine, 3), submit(engine, 1000), submit(engine, 3, background=True)
    left.cancel()
    left.cancel()
    queued.cancel()
    gate.open()
    await drain(made)

    assert ended == [left, queued, made]
    assert [generation.outcome for generation in ended] == ["cancelled", "cancelled", "made"]
    assert made.first_audio_s is not None
    assert 0 < made.first_audio_s <= made.total_s
    assert left.first_audio_s is None
    made.cancel()  # as leaving its `async with` block does
    assert (made.outcome, len(ended)) == ("made", 3)


async def test_utterances_of_a_stopping_engine_fail(gate: Gate) -> None:
    stopped = engine(gate)
    ended: list[Generation] = []
    stopped.watch(ended.append)
    stopped.start()
    await ready(stopped)
    submit(stopped, 1000)
    stopping = asyncio.create_task(asyncio.to_thread(stopped.stop))
    while not stopped._stopping:
        await asyncio.sleep(0)
    gate.open()
    await stopping
    await asyncio.sleep(0)

    assert [generation.outcome for generation in ended] == ["failed"]


async def test_a_pool_sums_work_and_reports_every_end(gate: Gate) -> None:
    ended: list[Generation] = []
    pool = EnginePool("preview", lambda: [engine(gate), engine(gate)])
    assert pool.work == Work()
    pool.watch(ended.append)
    pool.start()
    await ready(pool)
    generations = [submit(pool, 10) for _ in range(6)]
    assert pool.busy + pool.waiting(background=False) == 6
    assert pool.waiting(background=True) == 0
    gate.open()
    await drain(*generations)
    await asyncio.to_thread(pool.stop)

    assert len(ended) == 6
    assert pool.work.slot_steps == pool.work.tokens == 60
