"""What a replica tells the servers, without a cluster around it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from dia_server.engine.types import Chunk, LoadModel, Utterance
from tests.engine.talker import load_talker

pytest.importorskip("ray", reason="Ray is not installed; it is the extra cluster")
# Ray's modules warn of their own code
pytestmark = pytest.mark.filterwarnings("ignore")


@asynccontextmanager
async def replica(load_model: LoadModel, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    from dia_server.engine.cluster import replica as module

    monkeypatch.setattr(module, "_replica_id", lambda: "one")  # Ray Serve tells it in a cluster only
    monkeypatch.setattr(module, "SIGN_OF_LIFE_S", 0.01)
    one: Any = module.EngineReplica.__new__(module.EngineReplica)
    await one.__init__("dia", load_model, 2, 3072)
    yield one
    await asyncio.to_thread(one._engine.stop)


def speak(one: Any, text: str) -> Any:
    return one.speak(Utterance(text, voice="a", seed=0), server="s", avoid=())


async def test_an_engine_that_stopped_leaves_its_utterances_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with replica(load_talker, monkeypatch) as one:
        assert [type(sign) for sign in [sign async for sign in speak(one, "one")][1:]] == [Chunk]
        assert (await one.state("s", 0)).slots == 2
        async for _ in speak(one, "break"):
            pass
        while one._engine.error is None:
            await asyncio.sleep(0.01)

        assert len([sign async for sign in speak(one, "one")]) == 1  # Begun, and no failure
        with pytest.raises(ArithmeticError, match="after a fault"):
            await one.state("s", 0)


async def test_a_listener_that_leaves_while_it_waits_leaves_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async with replica(partial(load_talker, slots=1), monkeypatch) as one:
        running, waiting = speak(one, "word " * 200_000), speak(one, "one")
        await anext(running)
        await anext(running)
        tasks = asyncio.all_tasks()
        assert [type(await anext(waiting)).__name__ for _ in range(2)] == ["Begun", "NoneType"]
        await waiting.aclose()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= tasks
        await running.aclose()
