import asyncio
import multiprocessing
from collections.abc import Iterator
from functools import partial

import pytest

from dia_server.engine.engine import Engine
from dia_server.engine.types import Chunk, Utterance
from dia_server.engine.workers import WorkerDied, WorkerModel, in_worker
from dia_server.errors import ServerError, TextTooLong
from tests.engine.talker import load_nothing, load_talker


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def reports() -> list[float]:
    return []


@pytest.fixture
def model(reports: list[float]) -> Iterator[WorkerModel]:
    model = WorkerModel(load_talker, reports.append)
    yield model
    model.close()


def say(text: str) -> Utterance:
    return Utterance(text, voice="a", seed=0)


def test_a_worker_does_what_its_model_does(model: WorkerModel, reports: list[float]) -> None:
    model.admit(0, say("one two"))
    model.admit(1, say("one"))

    first, second = model.step(), model.step

    assert model.slots == 2
    assert model.notes == ("talks only",)
    assert reports == [0.5]
    assert {slot: chunk.done for slot, chunk in first.items() if isinstance(chunk, Chunk)} == {
        0: False,
        1: True,
    }
    model.release(1)
    assert list(second()) == [0]


def test_log_records_of_a_worker_reach_the_parent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        WorkerModel(load_talker, lambda share: None).close()
    with caplog.at_level("WARNING"):
        WorkerModel(load_talker, lambda share: None).close()

    assert [(record.message, vars(record)["slots"]) for record in caplog.records] == [("slots", 2)]


def test_named_errors_keep_their_name_and_others_their_text(model: WorkerModel) -> None:
    with pytest.raises(TextTooLong, match="1025") as refused:
        model.admit(0, say("too long"))
    assert refused.value.param == "text"

    model.admit(0, say("fail"))
    assert isinstance(model.step()[0], TextTooLong)
    model.release(0)

    model.admit(0, say("crash"))
    with pytest.raises(RuntimeError, match="ArithmeticError: the step failed"):
        model.step()


def test_a_worker_that_died_is_started_again(model: WorkerModel, reports: list[float]) -> None:
    model.admit(0, say("die"))
    with pytest.raises(WorkerDied, match="exit code 7"):
        model.step()
    model.release(0)

    model.reset()

    model.admit(0, say("one"))
    assert list(model.step()) == [0]
    assert reports == [0.5, 0.0, 0.5, 1.0]


def test_a_worker_that_died_while_idle_is_started_for_the_next_utterance(model: WorkerModel) -> None:
    (worker,) = [child for child in multiprocessing.active_children() if child.name == "dia-worker"]
    worker.kill()
    worker.join()

    model.admit(0, say("one"))

    assert list(model.step()) == [0]


def test_an_utterance_that_kills_its_worker_twice_fails(model: WorkerModel) -> None:
    with pytest.raises(WorkerDied, match="exit code 3"):
        model.admit(0, say("die at once"))


def test_an_error_of_loading_is_raised_in_the_parent() -> None:
    with pytest.raises(RuntimeError, match="OSError: no weights"):
        WorkerModel(load_nothing, lambda share: None)


async def test_an_engine_outlives_its_worker() -> None:
    engine = Engine("dia", in_worker(partial(load_talker, slots=2)), max_waiting=8)
    engine.start()
    while not engine.ready:
        await asyncio.sleep(0.01)

    bystander = engine.submit(say("word " * 5000))
    doomed = engine.submit(say("one die"))
    for generation in (doomed, bystander):
        with pytest.raises(ServerError, match="exit code 7"):
            async for _ in generation:
                pass

    assert len([chunk async for chunk in engine.submit(say("one two"))]) == 2
    await asyncio.to_thread(engine.stop)


async def test_an_engine_outlives_a_fault_of_its_gpu() -> None:
    """After a CUDA fault every call fails, including `release`."""
    engine = Engine("dia", in_worker(load_talker), max_waiting=8)
    engine.start()
    while not engine.ready:
        await asyncio.sleep(0.01)

    for generation in [engine.submit(say("word " * 5000)), engine.submit(say("one two break"))]:
        with pytest.raises(ServerError, match="the GPU has a fault"):
            async for _ in generation:
                pass

    assert len([chunk async for chunk in engine.submit(say("one two"))]) == 2
    await asyncio.to_thread(engine.stop)
