import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from dia_server.engine.engine import Engine
from dia_server.engine.types import Chunk, Flow, LoadModel, Model, Utterance
from dia_server.errors import GpuOutOfMemory, ModelNotLoaded, Overloaded, ServerError
from tests.tones import Gate, ToneModel, loader


def utterance(steps: int, client: str = "") -> Utterance:
    return Utterance("x" * steps, voice="aria", seed=0, flow=Flow(client))


async def started(load: LoadModel, max_waiting: int = 16, idle_unload_s: float | None = None) -> Engine:
    engine = Engine("preview", load, max_waiting=max_waiting, idle_unload_s=idle_unload_s)
    engine.start()
    while not engine.ready and engine.error is None:
        await asyncio.sleep(0.001)
    return engine


async def stop(engine: Engine) -> None:
    await asyncio.to_thread(engine.stop)


@pytest.fixture
def model() -> ToneModel:
    return ToneModel(slots=2)


@pytest.fixture
async def engine(model: ToneModel) -> AsyncIterator[Engine]:
    engine = await started(loader(model))
    yield engine
    await stop(engine)


async def collect(engine: Engine, steps: int, client: str = "") -> list[Chunk]:
    async with engine.submit(utterance(steps, client)) as generation:
        return [chunk async for chunk in generation]


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_more_utterances_than_slots_all_finish(engine: Engine) -> None:
    results = await asyncio.gather(*(collect(engine, steps) for steps in (1, 2, 3, 4, 5)))

    assert [len(chunks) for chunks in results] == [1, 2, 3, 4, 5]
    assert engine.active == 0


async def test_utterances_share_steps(engine: Engine, model: ToneModel) -> None:
    model.before_step = gate = Gate()
    tasks = [asyncio.create_task(collect(engine, 10)) for _ in range(2)]
    await until(lambda: gate.entered.is_set() and engine.active == 2)
    gate.open()
    await asyncio.gather(*tasks)

    assert model.steps <= 11  # ten, plus one that the first utterance may have run alone


async def test_running_utterances_step_between_the_admissions_of_a_burst() -> None:
    model = ToneModel(slots=16, before_step=(gate := Gate()))
    engine = await started(loader(model))
    first = asyncio.create_task(collect(engine, 20))
    await until(gate.entered.is_set)
    running: list[int] = []
    model.before_step = lambda: running.append(len(model.left))
    burst = [asyncio.create_task(collect(engine, 20, f"client {n}")) for n in range(15)]
    await until(lambda: engine.active == 16)
    gate.open()
    await asyncio.gather(first, *burst)

    assert running[:5] == [5, 9, 13, 16, 16]
    await stop(engine)


async def test_progress_reaches_one_with_the_last_chunk(engine: Engine) -> None:
    chunks = await collect(engine, 3)

    assert [chunk.done for chunk in chunks] == [False, False, True]
    assert chunks[-1].progress == 1.0


async def test_leaving_early_frees_the_slot_within_a_step(engine: Engine, model: ToneModel) -> None:
    for _ in range(6):
        async with engine.submit(utterance(1_000_000)) as generation:
            await anext(generation)
        steps = model.steps
        await until(lambda: engine.active == 0)
        assert model.steps - steps <= 2  # the current step, plus one started before the count
    assert len(await collect(engine, 2)) == 2


async def test_a_cancelled_task_leaves_the_queue_without_a_slot() -> None:
    model = ToneModel(slots=1, before_step=(gate := Gate()))
    engine = await started(loader(model), max_waiting=1)
    running = asyncio.create_task(collect(engine, 1))
    await until(gate.entered.is_set)
    waiting = asyncio.create_task(collect(engine, 1))
    await until(lambda: engine.active == 2)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    async with engine.submit(utterance(1)) as generation:  # its place in the queue is free again
        gate.open()
        assert len(await running) == len([chunk async for chunk in generation]) == 1
    assert len(model.seen) == 2
    await stop(engine)


async def test_a_full_queue_is_refused() -> None:
    engine = await started(loader(ToneModel(slots=1, before_step=(gate := Gate()))), max_waiting=1)
    running = asyncio.create_task(collect(engine, 1))
    await until(gate.entered.is_set)
    engine.submit(utterance(1))

    with pytest.raises(Overloaded, match="DIA_MAX_WAITING") as refused:
        engine.submit(utterance(1))

    assert refused.value.retry_after
    gate.open()
    await running
    await stop(engine)


async def test_stop_fails_running_and_queued_utterances() -> None:
    engine = await started(loader(model := ToneModel(slots=1)))
    async with engine.submit(utterance(1_000_000)) as running, engine.submit(utterance(1)) as waiting:
        await anext(running)
        await stop(engine)
        for generation in (running, waiting):
            with pytest.raises(ModelNotLoaded, match="shutting down"):
                async for _ in generation:
                    pass
    with pytest.raises(ModelNotLoaded):
        engine.submit(utterance(1))
    assert model.closed


async def test_a_model_that_does_not_load_is_reported() -> None:
    def fail(_: object) -> ToneModel:
        raise OSError("no weights")

    engine = await started(fail)
    with pytest.raises(ModelNotLoaded, match="no weights"):
        engine.submit(utterance(1))
    await stop(engine)


async def test_a_failed_load_is_retried_on_request() -> None:
    outcomes = iter([OSError("no weights"), OSError("no network"), None])

    def load(_: object) -> ToneModel:
        if (failure := next(outcomes)) is not None:
            raise failure
        return ToneModel()

    engine = await started(load)
    engine.load()
    await until(lambda: engine.error is not None)
    with pytest.raises(ModelNotLoaded, match="no network"):
        engine.submit(utterance(1))
    engine.load()
    await until(lambda: engine.ready)
    engine.load()  # no effect after success
    assert len(await collect(engine, 2)) == 2
    await stop(engine)


async def test_a_failed_load_keeps_neither_traceback_nor_cause() -> None:
    def load(_: object) -> ToneModel:
        try:
            raise MemoryError
        except MemoryError as error:
            raise ModelNotLoaded("Too little memory") from error

    engine = await started(load)
    assert engine.error is not None
    assert (engine.error.__traceback__, engine.error.__cause__) == (None, None)
    await stop(engine)


async def test_a_model_that_is_loading_says_how_far_it_is() -> None:
    gate = Gate()

    def load(report: object) -> ToneModel:
        assert callable(report)
        report(0.25)
        gate()
        return ToneModel()

    engine = Engine("preview", load, max_waiting=1)
    engine.start()
    await until(gate.entered.is_set)
    with pytest.raises(ModelNotLoaded, match="25%") as refused:
        engine.submit(utterance(1))
    assert refused.value.retry_after
    gate.open()
    await until(lambda: engine.ready)
    await stop(engine)


async def test_a_failing_step_fails_the_batch_and_the_engine_lives_on(
    engine: Engine, model: ToneModel
) -> None:
    def fail() -> None:
        model.before_step = lambda: None
        raise ZeroDivisionError("boom")

    model.before_step = fail
    with pytest.raises(ServerError, match="boom"):
        await collect(engine, 5)

    assert len(await collect(engine, 5)) == 5
    assert model.resets == 1


async def test_a_refused_admission_fails_that_utterance_alone(engine: Engine, model: ToneModel) -> None:
    admit = model.admit

    def admit_short(slot: int, utterance: Utterance) -> None:
        if len(utterance.text) > 10:
            raise GpuOutOfMemory("too long")
        admit(slot, utterance)

    model.admit = admit_short  # type: ignore[method-assign]
    good, bad = await asyncio.gather(collect(engine, 5), collect(engine, 50), return_exceptions=True)

    assert isinstance(good, list)
    assert isinstance(bad, GpuOutOfMemory)
    assert engine.active == 0


async def test_a_model_that_cannot_be_reset_ends_the_engine_with_its_cause(model: ToneModel) -> None:
    models = iter([model, ToneModel()])
    engine = await started(lambda _: next(models))

    def fail() -> None:
        raise RuntimeError("gone")

    model.before_step = model.reset = fail  # type: ignore[method-assign]
    with pytest.raises(ServerError, match="gone"):
        await collect(engine, 5)
    await until(lambda: engine.error is not None)
    with pytest.raises(ModelNotLoaded, match="gone"):
        engine.submit(utterance(1))

    engine.load()  # loads a new model
    await until(lambda: engine.ready)
    assert len(await collect(engine, 5)) == 5
    await stop(engine)


async def test_an_idle_model_is_unloaded_and_loaded_again_on_demand() -> None:
    models = [ToneModel(), ToneModel()]
    left = iter(models)
    engine = await started(lambda _: next(left), idle_unload_s=0.02)

    assert len(await collect(engine, 2)) == 2
    await until(lambda: engine.loaded == 0)
    assert models[0].closed
    assert engine.ready
    assert len(await collect(engine, 3)) == 3
    assert len(models[1].seen) == 1
    await stop(engine)


async def test_a_failed_reload_is_reported_and_retried() -> None:
    loads = 0

    def load(_: object) -> ToneModel:
        nonlocal loads
        loads += 1
        if loads == 2:
            raise OSError("memory is taken")
        return ToneModel()

    engine = await started(load, idle_unload_s=0.01)
    await until(lambda: engine.loaded == 0)
    with pytest.raises(ModelNotLoaded, match="memory is taken"):
        await collect(engine, 1)
    assert len(await collect(engine, 1)) == 1
    await stop(engine)


async def test_stopping_does_not_wait_for_a_model_that_is_loading() -> None:
    loading = threading.Event()

    def load(report: Callable[[float], None]) -> Model:
        for percent in range(1000):
            report(percent / 1000)
            loading.set()
            time.sleep(0.02)
        return ToneModel()

    engine = Engine("preview", load, max_waiting=1)
    engine.start()
    await asyncio.to_thread(loading.wait)

    await asyncio.wait_for(stop(engine), 5)

    assert isinstance(engine.error, ModelNotLoaded)
