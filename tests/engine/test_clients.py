"""Fair sharing of slots and queue places between clients."""

import asyncio

import pytest

from dia_server.engine.types import Flow, Utterance
from dia_server.errors import Overloaded
from tests.engine.running import finish, order, started
from tests.tones import Gate, ToneModel


def utterance(text: str, client: str) -> Utterance:
    return Utterance(text, "aria", seed=1, flow=Flow(client))


@pytest.mark.parametrize(("slots", "held"), [(1, 1), (4, 4), (8, 7), (16, 14), (64, 62)])
async def test_one_client_leaves_slots_to_others_where_there_are_many(slots: int, held: int) -> None:
    gate = Gate()
    model = ToneModel(slots=slots, before_step=gate)
    async with started(model, max_waiting=256) as engine:
        crowd = [engine.submit(utterance("c" * 20, "crowd")) for _ in range(slots + 4)]
        await asyncio.to_thread(gate.entered.wait, 5)
        gate.open()
        await finish(*crowd)

    assert model.most == held


async def test_a_newcomer_begins_at_once_while_a_client_has_many_long_texts() -> None:
    model = ToneModel(slots=8)
    async with started(model) as engine:
        crowd = [engine.submit(utterance("c" * 1_000_000, "crowd")) for _ in range(12)]
        await anext(crowd[6])

        await finish(engine.submit(utterance("n", "newcomer")))  # although none of the other texts has ended

        assert engine.busy >= 7
        for generation in crowd:
            generation.cancel()


async def test_when_all_slots_are_held_the_next_goes_to_a_newcomer() -> None:
    gate = Gate()
    model = ToneModel(slots=1, before_step=gate)
    async with started(model) as engine:
        crowd = [engine.submit(utterance("c", "crowd")) for _ in range(6)]
        await asyncio.to_thread(gate.entered.wait, 5)
        others = [engine.submit(utterance("o", "other")) for _ in range(3)]
        gate.open()
        await finish(*others, *crowd)

    assert order(model) == "cocococcc"


async def test_jobs_and_a_client_leave_the_slots_kept_for_newcomers() -> None:
    gate = Gate()
    model = ToneModel(slots=8, before_step=gate)
    async with started(model) as engine:
        crowd = [engine.submit(utterance("c" * 30, "crowd")) for _ in range(4)]
        jobs = [engine.submit(utterance("j" * 30, ""), background=True) for _ in range(8)]
        await asyncio.to_thread(gate.entered.wait, 5)
        gate.open()
        await finish(*crowd, *jobs)

    assert model.most == 7


async def test_jobs_progress_while_many_clients_have_requests() -> None:
    gate = Gate()
    model = ToneModel(slots=8)
    model.before_step = lambda: gate() if model.steps == 3 else None  # when all slots are held
    async with started(model, max_waiting=256) as engine:
        crowd = [engine.submit(utterance("c" * (20 + n), f"client {n % 12}")) for n in range(72)]
        await asyncio.to_thread(gate.entered.wait, 5)
        jobs = [engine.submit(utterance("j", ""), background=True) for _ in range(4)]
        gate.open()
        await finish(*crowd, *jobs)

    assert [seen.text[0] for seen in model.seen[:60]].count("j") == 4


async def test_one_client_leaves_places_in_the_queue_to_others() -> None:
    gate = Gate()
    async with started(ToneModel(slots=1, before_step=gate), max_waiting=8) as engine:
        first = engine.submit(utterance("c", "crowd"))
        await asyncio.to_thread(gate.entered.wait, 5)
        crowd = [engine.submit(utterance("c", "crowd")) for _ in range(7)]
        with pytest.raises(Overloaded, match="7 requests of this client are waiting"):
            engine.submit(utterance("c", "crowd"))

        other = engine.submit(utterance("o", "other"))
        with pytest.raises(Overloaded, match="8 requests are waiting"):
            engine.submit(utterance("o", "another"))
        gate.open()
        await finish(first, *crowd, other)
