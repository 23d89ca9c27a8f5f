"""The engine round a model: slots, the queue, failures, unloading."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from dia_server.engine.engine import Engine
from dia_server.engine.types import Chunk, Model, Utterance
from dia_server.errors import ModelNotLoaded, Overloaded, ServerError

from .models import Counter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def running(
    load: Callable[[Callable[[float], None]], Model],
    max_waiting: int = 100,
    idle_unload_s: float | None = None,
) -> AsyncIterator[Engine]:
    engine = Engine("test", load, max_waiting=max_waiting, idle_unload_s=idle_unload_s)
    engine.start()
    await until(lambda: engine.ready or engine.error is not None)
    yield engine
    await asyncio.to_thread(engine.stop)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.001)


async def speak(engine: Engine, text: str) -> list[Chunk]:
    async with engine.submit(Utterance(text, "", seed=0)) as generation:
        return [chunk async for chunk in generation]


async def test_more_utterances_than_slots_all_finish() -> None:
    async with running(lambda report: Counter(slots=2)) as engine:
        results = await asyncio.gather(*(speak(engine, "x" * n) for n in (1, 2, 3, 4, 5)))
    assert [len(chunks) for chunks in results] == [1, 2, 3, 4, 5]


async def test_leaving_early_frees_the_slot() -> None:
    async with running(lambda report: Counter(slots=1)) as engine:
        for _ in range(3):
            async with engine.submit(Utterance("x" * 1_000_000, "", seed=0)) as generation:
                await anext(generation)
        assert len(await speak(engine, "xx")) == 2


async def test_a_refused_utterance_does_not_touch_the_others() -> None:
    async with running(lambda report: Counter(slots=2)) as engine:
        other = asyncio.create_task(speak(engine, "x" * 500))
        with pytest.raises(ServerError, match="no room"):
            await speak(engine, "refuse")
        assert len(await other) == 500


async def test_a_failed_step_fails_what_runs_and_the_engine_serves_on() -> None:
    model = Counter(slots=1)
    async with running(lambda report: model) as engine:
        async with engine.submit(Utterance("x" * 1_000_000, "", seed=0)) as generation:
            await anext(generation)
            model.failure = RuntimeError("device-side assert")
            with pytest.raises(ServerError, match="device-side assert"):
                async for _ in generation:
                    pass
        assert len(await speak(engine, "xxx")) == 3
    assert model.resets == 1


async def test_a_full_queue_is_refused() -> None:
    async with (
        running(lambda report: Counter(slots=1), max_waiting=1) as engine,
        engine.submit(Utterance("x" * 1_000_000, "", seed=0)) as first,
    ):
        await anext(first)
        async with engine.submit(Utterance("x", "", seed=0)):
            with pytest.raises(Overloaded):
                engine.submit(Utterance("x", "", seed=0))


async def test_a_model_that_does_not_load_is_reported() -> None:
    def fail(report: Callable[[float], None]) -> Model:
        raise ModelNotLoaded("no weights")

    async with running(fail) as engine:
        with pytest.raises(ModelNotLoaded, match="no weights"):
            engine.submit(Utterance("x", "", seed=0))


async def test_stop_fails_what_is_running() -> None:
    async with (
        running(lambda report: Counter(slots=1)) as engine,
        engine.submit(Utterance("x" * 1_000_000, "", seed=0)) as generation,
    ):
        await anext(generation)
        await asyncio.to_thread(engine.stop)
        with pytest.raises(ModelNotLoaded):
            async for _ in generation:
                pass


async def test_an_idle_model_is_unloaded_and_loaded_again_on_demand() -> None:
    models: list[Counter] = []

    def load(report: Callable[[float], None]) -> Model:
        models.append(Counter())
        return models[-1]

    async with running(load, idle_unload_s=0.02) as engine:
        assert len(await speak(engine, "xx")) == 2
        await until(lambda: engine.loaded == 0.0)
        assert models[0].closed
        assert engine.ready
        assert len(await speak(engine, "xxx")) == 3
        assert len(models) == 2
    assert models[1].closed


async def test_a_reload_that_fails_is_told_and_tried_again() -> None:
    loads = 0

    def load(report: Callable[[float], None]) -> Model:
        nonlocal loads
        loads += 1
        if loads == 2:
            raise ModelNotLoaded("memory is taken")
        return Counter()

    async with running(load, idle_unload_s=0.01) as engine:
        await until(lambda: engine.loaded == 0.0)
        with pytest.raises(ModelNotLoaded, match="memory is taken"):
            await speak(engine, "x")
        assert len(await speak(engine, "x")) == 1
