"""Background work in the engine: it yields to requests, leaves slots free, and does not starve."""

import asyncio

import pytest

from dia_server.engine.types import Utterance
from tests.engine.running import finish, order, started
from tests.tones import Gate, ToneModel


def utterance(text: str) -> Utterance:
    return Utterance(text, "aria", seed=1)


async def test_background_work_yields_to_requests_without_starving() -> None:
    gate = Gate()
    model = ToneModel(slots=1, before_step=gate)
    async with started(model) as engine:
        first = engine.submit(utterance("x"))
        await asyncio.to_thread(gate.entered.wait, 5)
        behind = [engine.submit(utterance("b"), background=True) for _ in range(3)]
        before = [engine.submit(utterance("f")) for _ in range(9)]
        assert engine.active == 13
        gate.open()
        await finish(first, *before, *behind)

    assert order(model) == "x" + "fff" + "b" + "ffff" + "b" + "ff" + "b"


@pytest.mark.parametrize(("slots", "used"), [(1, 1), (2, 1), (4, 3), (16, 14)])
async def test_background_work_leaves_slots_free(slots: int, used: int) -> None:
    gate = Gate()
    model = ToneModel(slots=slots, before_step=gate)
    async with started(model) as engine:
        behind = [engine.submit(utterance("b" * 8), background=True) for _ in range(slots + 4)]
        await asyncio.to_thread(gate.entered.wait, 5)
        gate.open()
        await finish(*behind)

    assert model.most == used


async def test_background_work_does_not_use_up_the_queue() -> None:
    gate = Gate()
    async with started(ToneModel(slots=1, before_step=gate), max_waiting=1) as engine:
        behind = [engine.submit(utterance("b"), background=True) for _ in range(4)]
        await asyncio.to_thread(gate.entered.wait, 5)
        request = engine.submit(utterance("f"))
        gate.open()
        await finish(request, *behind)


async def test_cancelled_background_work_is_never_begun() -> None:
    gate = Gate()
    model = ToneModel(slots=1, before_step=gate)
    async with started(model) as engine:
        first = engine.submit(utterance("x"))
        await asyncio.to_thread(gate.entered.wait, 5)
        engine.submit(utterance("b"), background=True).cancel()
        gate.open()
        await finish(first, engine.submit(utterance("f")))

    assert order(model) == "xf"
