import asyncio
from collections.abc import AsyncIterator
from functools import partial

import numpy as np
import pytest

from dia_server.engine.engine import Engine
from dia_server.engine.pool import EnginePool
from dia_server.engine.types import Recording, Utterance, VoicePrompt
from dia_server.errors import ModelNotLoaded
from tests.engine.talker import load_nothing, load_talker


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    """Two engines of two slots, each in its own process."""
    load = partial(load_talker, slots=2)
    pool = EnginePool("dia", lambda: [Engine("dia", load, max_waiting=8, own_process=True) for _ in range(2)])
    pool.start()
    while pool.loaded < 1:
        await asyncio.sleep(0.01)
    yield pool
    await asyncio.to_thread(pool.stop)


def say(text: str, digest: str = "") -> Utterance:
    prompt = VoicePrompt((Recording(np.zeros(1, np.float32), digest),), "[S1] Hi.") if digest else None
    return Utterance(text, voice="a", seed=0, prompt=prompt)


async def processes(pool: EnginePool, *utterances: Utterance) -> list[int]:
    """Submit `utterances` together; return the id of the process that ran each."""
    generations = [pool.submit(utterance) for utterance in utterances]
    made = [[chunk async for chunk in generation] for generation in generations]
    return [int(chunks[0].samples[0]) for chunks in made]


async def test_the_pool_is_the_sum_of_its_engines(pool: EnginePool) -> None:
    assert (pool.name, pool.ready, pool.error, pool.slots, pool.worker_count) == ("dia", True, None, 4, 2)
    assert pool.active == 0


async def test_work_spreads_over_the_processes(pool: EnginePool) -> None:
    long = say("word " * 200)  # the first is running when the last is submitted
    made_in = await processes(pool, *[long] * 4)

    assert sorted(made_in.count(process) for process in set(made_in)) == [2, 2]


async def test_a_voice_keeps_to_one_engine_while_both_are_free(pool: EnginePool) -> None:
    homes: list[int] = []
    for digest in ("a", "b", "c", "d", "e", "f", "g", "h"):
        home = {(await processes(pool, say("one", digest)))[0] for _ in range(3)}
        assert len(home) == 1
        homes += home
    assert len(set(homes)) == 2


async def test_one_dead_worker_does_not_disturb_the_other(pool: EnginePool) -> None:
    doomed = pool.submit(say("one die"))
    [home] = await processes(pool, say(" ".join(["word"] * 50)))

    with pytest.raises(Exception, match="exit code 7"):
        async for _ in doomed:
            pass

    assert home in await processes(pool, *[say("one two") for _ in range(4)])


async def test_an_engine_that_cannot_load_leaves_the_others_at_work() -> None:
    engines = [Engine("dia", load, max_waiting=8) for load in (load_nothing, load_talker)]
    pool = EnginePool("dia", lambda: engines)
    pool.start()
    while not pool.ready:
        await asyncio.sleep(0.001)

    assert pool.error is None
    assert pool.slots == 2
    assert len(await processes(pool, *[say("one") for _ in range(5)])) == 5
    await asyncio.to_thread(pool.stop)


async def test_an_unloaded_engine_is_woken_when_the_others_are_full() -> None:
    load = partial(load_talker, slots=1)
    engines = [Engine("dia", load, max_waiting=8, idle_unload_s=0.2, own_process=True) for _ in range(2)]
    pool = EnginePool("dia", lambda: engines)
    pool.start()
    while pool.loaded > 0 or not pool.ready:
        await asyncio.sleep(0.01)

    made_in = await processes(pool, say("one two three"), say("one two three"))

    assert len(set(made_in)) == 2
    await asyncio.to_thread(pool.stop)


async def test_when_no_engine_can_load_the_reason_is_given() -> None:
    pool = EnginePool("dia", lambda: [Engine("dia", load_nothing, max_waiting=8) for _ in range(2)])
    pool.start()
    await asyncio.to_thread(pool.stop)

    assert "no weights" in str(pool.error)
    with pytest.raises(ModelNotLoaded, match="no weights"):
        pool.submit(say("one"))
