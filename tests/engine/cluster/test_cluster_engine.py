"""The engine of a cluster: the same audio, fair slots, and failover of an utterance that is being heard."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.cluster.engine import ClusterEngine
from dia_server.engine.cluster.types import ReplicaState
from dia_server.engine.generation import Generation
from dia_server.engine.types import Flow, Samples, Utterance
from dia_server.errors import EngineLost, ModelNotLoaded, Overloaded
from tests.engine.cluster.replicas import CHUNKS, FakeReplicas, Fault, audio
from tests.waiting import until


def utterance(seed: int, client: str = "") -> Utterance:
    return Utterance("[S1] Hello.", "aria", seed, flow=Flow(client))


def whole(seed: int) -> Samples:
    return np.concatenate([chunk.samples for chunk in audio(utterance(seed))])


@asynccontextmanager
async def cluster(
    replicas: FakeReplicas, *, max_waiting: int = 8, silence_s: float = 60, answer_s: float = 60
) -> AsyncIterator[ClusterEngine]:
    engine = ClusterEngine(
        "preview",
        replicas,
        max_waiting=max_waiting,
        columns=3072,
        poll_s=0.01,
        silence_s=silence_s,
        answer_s=answer_s,
    )
    engine.start()
    try:
        if not replicas.away and not replicas.replaced:
            await until(lambda: engine.ready or engine.error)
        yield engine
    finally:
        await asyncio.to_thread(engine.stop)
        assert replicas.closed


async def heard(generation: Generation) -> Samples:
    async with generation:
        return np.concatenate([chunk.samples async for chunk in generation])


def running(replicas: FakeReplicas, count: int) -> Callable[[], bool]:
    return lambda: len(replicas.running) == count


async def test_the_audio_is_that_of_a_replica() -> None:
    async with cluster(FakeReplicas()) as engine:
        anything: AnyEngine = engine
        assert np.array_equal(await heard(anything.submit(utterance(1))), whole(1))
        assert engine.cluster.failovers == 0


async def test_utterances_wait_while_all_replicas_are_replaced() -> None:
    replicas = FakeReplicas()
    async with cluster(replicas) as engine:
        replicas.replaced = True
        await until(lambda: engine.worker_count == 0)
        generation = engine.submit(utterance(1))
        polls = replicas.polls
        await until(lambda: replicas.polls > polls)
        assert not replicas.begun

        replicas.replaced = False
        assert np.array_equal(await heard(generation), whole(1))


async def test_a_cluster_that_never_had_a_replica_is_not_ready() -> None:
    replicas = FakeReplicas(replaced=True)
    async with cluster(replicas) as engine:
        await until(lambda: replicas.polls)
        with pytest.raises(ModelNotLoaded):
            engine.submit(utterance(1))


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_a_replica_that_dies_is_replaced_without_a_wrong_sample(chunk: int) -> None:
    replicas = FakeReplicas(faults=[Fault(dies_before=chunk), Fault(dies_before=CHUNKS - 1)])
    async with cluster(replicas) as engine:
        assert np.array_equal(await heard(engine.submit(utterance(1))), whole(1))
        assert engine.cluster.failovers == 2
        assert len(replicas.begun) == 3


async def test_tokens_of_a_replay_are_counted_too() -> None:
    async with (
        cluster(FakeReplicas(faults=[Fault(dies_before=4)])) as engine,
        engine.submit(utterance(1)) as generation,
    ):
        tokens = [chunk.tokens async for chunk in generation]
    assert sum(tokens) == sum(range(CHUNKS)) + sum(range(4))  # four chunks were generated twice


async def test_a_replica_that_says_nothing_any_more_counts_as_lost() -> None:
    replicas = FakeReplicas(faults=[Fault(freezes_before=3)])
    async with cluster(replicas, silence_s=0.05) as engine:
        assert np.array_equal(await heard(engine.submit(utterance(1))), whole(1))
        assert engine.cluster.failovers == 1
        assert replicas.running == []


async def test_an_utterance_that_no_replica_begins_is_sent_again() -> None:
    replicas = FakeReplicas(faults=[Fault(freezes_before=0)] * 5)
    async with cluster(replicas, answer_s=0.02) as engine:
        assert np.array_equal(await heard(engine.submit(utterance(1))), whole(1))
        assert engine.cluster.failovers == 0


async def test_speech_that_another_replica_would_continue_differently_ends() -> None:
    replicas = FakeReplicas(faults=[Fault(dies_before=3), Fault(gain=0.5)])
    async with cluster(replicas) as engine:
        generation, parts = engine.submit(utterance(1)), []
        with suppress(EngineLost):
            async for chunk in generation:
                parts.append(chunk.samples)
        assert generation.outcome == "failed"
        assert np.array_equal(np.concatenate(parts), whole(1)[: sum(map(len, parts))])
        assert len(parts) == 3

        assert np.array_equal(await heard(engine.submit(utterance(2))), whole(2))


async def test_what_was_not_heard_may_be_generated_differently() -> None:
    replicas = FakeReplicas(faults=[Fault(dies_before=0), Fault(gain=0.5)])
    async with cluster(replicas) as engine:
        assert np.array_equal(await heard(engine.submit(utterance(1))), whole(1) * np.float32(0.5))


async def test_an_utterance_that_loses_three_replicas_fails() -> None:
    async with cluster(FakeReplicas(faults=[Fault(dies_before=1)] * 3)) as engine:
        with pytest.raises(EngineLost, match="3 engines were lost"):
            await heard(engine.submit(utterance(1)))
        await until(lambda: engine.active == 0)


async def test_no_more_utterances_are_sent_than_there_are_slots() -> None:
    replicas = FakeReplicas(slots=3)
    async with cluster(replicas) as engine:
        generations = [engine.submit(utterance(seed)) for seed in range(8)]
        assert (engine.slots, engine.busy, engine.waiting(background=False)) == (3, 3, 5)
        assert [len(one) for one in await asyncio.gather(*map(heard, generations))] == [len(whole(0))] * 8
    assert replicas.most == 3


async def test_requests_go_before_background_work() -> None:
    replicas = FakeReplicas(slots=1, hold=asyncio.Event())
    async with cluster(replicas) as engine:
        first = engine.submit(utterance(0))
        await until(running(replicas, 1))
        job = engine.submit(utterance(1), background=True)
        request = engine.submit(utterance(2))
        assert replicas.hold is not None
        replicas.hold.set()
        await asyncio.gather(*map(heard, (first, job, request)))
    assert [one.seed for one in replicas.begun] == [0, 2, 1]


async def test_a_full_queue_refuses() -> None:
    replicas = FakeReplicas(slots=1, hold=asyncio.Event())
    async with cluster(replicas, max_waiting=1) as engine:
        for seed in range(2):
            engine.submit(utterance(seed, client=str(seed)))
        with pytest.raises(Overloaded, match="DIA_MAX_WAITING"):
            engine.submit(utterance(2))


async def test_a_cancelled_utterance_frees_its_slot() -> None:
    replicas = FakeReplicas(slots=1, hold=asyncio.Event())
    async with cluster(replicas) as engine:
        first, waiting, third = (engine.submit(utterance(seed)) for seed in range(3))
        await until(running(replicas, 1))
        waiting.cancel()
        first.cancel()
        await until(lambda: [one.seed for one in replicas.running] == [2])
        assert engine.active == 1
        third.cancel()
        await until(running(replicas, 0))


async def test_a_listener_that_leaves_after_the_last_chunk_lets_the_response_end() -> None:
    replicas = FakeReplicas(ending=asyncio.Event())
    async with cluster(replicas) as engine:
        assert np.array_equal(await heard(engine.submit(utterance(1))), whole(1))
        assert replicas.ending is not None
        replicas.ending.set()
        await until(running(replicas, 0))
    assert replicas.ended == 1


async def test_slots_that_another_server_uses_are_not_counted() -> None:
    replicas = FakeReplicas(slots=3, hold=asyncio.Event())
    async with cluster(replicas) as engine:
        replicas.others = 2
        polls = replicas.polls
        await until(lambda: replicas.polls >= polls + 2)
        for seed in range(3):
            engine.submit(utterance(seed))
        assert (engine.busy, engine.waiting(background=False)) == (1, 2)


async def test_the_replicas_are_told_what_runs_and_what_waits() -> None:
    replicas = FakeReplicas(slots=2, hold=asyncio.Event())
    async with cluster(replicas) as engine:
        for seed in range(5):
            engine.submit(utterance(seed))
        await until(lambda: replicas.demand == 5)


async def test_a_cluster_of_another_version_is_refused_by_name() -> None:
    replicas = FakeReplicas(version="0.0.1")
    async with cluster(replicas) as engine:
        assert not engine.ready
        with pytest.raises(ModelNotLoaded, match=r"run dia-server 0\.0\.1, this server runs"):
            engine.submit(utterance(1))

        replicas.version = FakeReplicas.version
        engine.load()
        await until(lambda: engine.ready)
        assert engine.error is None


async def test_engines_with_fewer_columns_than_the_server_plans_for_are_refused() -> None:
    async with cluster(FakeReplicas(columns=2048)) as engine:
        with pytest.raises(ModelNotLoaded, match=r"2048 columns, .* 3072 \(DIA_MAX_COLUMNS\)"):
            engine.submit(utterance(1))


async def test_a_cluster_that_is_away_is_connected_again() -> None:
    replicas = FakeReplicas(away=True)
    async with cluster(replicas) as engine:
        await until(lambda: engine.error)
        with pytest.raises(ModelNotLoaded, match="cannot be reached"):
            engine.submit(utterance(1))
        replicas.away = False
        engine.load()
        await until(lambda: engine.ready)
        assert np.array_equal(await heard(engine.submit(utterance(1))), whole(1))

        replicas.away = True
        await until(lambda: engine.error)
        assert not engine.ready


async def test_an_unforeseen_error_of_a_poll_is_reported_and_the_polls_go_on() -> None:
    replicas = FakeReplicas()
    async with cluster(replicas) as engine:
        replicas.odd_polls = 1
        await until(lambda: engine.error)
        with pytest.raises(ModelNotLoaded, match="odd"):
            engine.submit(utterance(1))

        engine.load()
        await until(lambda: engine.ready)
        assert np.array_equal(await heard(engine.submit(utterance(1))), whole(1))


async def test_stopping_fails_what_runs_and_what_waits() -> None:
    replicas = FakeReplicas(slots=1, hold=asyncio.Event())
    async with cluster(replicas) as engine:
        generations = [engine.submit(utterance(seed)) for seed in range(2)]
        await until(running(replicas, 1))
    for generation in generations:
        assert generation.outcome == "failed"
    assert replicas.running == []


class LosesCancellations(FakeReplicas):
    """Answers the second poll late, and when it is cancelled, as `asyncio.wait_for` can in Python 3.11."""

    late = False

    async def states(self, demand: int) -> Sequence[ReplicaState]:
        if self.polls == 1:
            self.late = True
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return await super().states(demand)


async def test_stopping_ends_a_poll_that_loses_its_cancellation() -> None:
    replicas = LosesCancellations()
    async with cluster(replicas):
        await until(lambda: replicas.late)
    assert replicas.polls == 2
