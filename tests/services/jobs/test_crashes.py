"""A job whose attempt crashed runs alone the next time, and fails after two crashes."""

import pytest

from dia_server.db.engine import Database
from dia_server.engine.workers import WorkerDied
from dia_server.errors import EngineLost
from dia_server.services.jobs.store import MAX_ATTEMPTS, Job, JobStore
from dia_server.services.peers import Membership
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.job_client import serving, submit, wait_until_finished
from tests.postgres import BOTH_DATABASES
from tests.tones import FatalModel


@pytest.fixture
async def store(database: Database) -> JobStore:
    return await started(database)


async def started(database: Database) -> JobStore:
    """Return the store of a server that has just started."""
    store = JobStore(database, Membership(database))
    await store.membership.join()
    return store


async def queue(store: JobStore, count: int) -> list[str]:
    request = SpeechRequest(text="Hello", voice_id="aria", seed=1)
    return [
        (await store.add(request, CastSnapshot(VoiceSnapshot("aria")), "pending")).job_id
        for _ in range(count)
    ]


async def crash(store: JobStore, cause: str) -> None:
    await store.requeue_crashed({store.membership.server_id: cause})
    await store.membership.join()


async def claim(store: JobStore, *, idle: bool = True) -> list[str]:
    return [job.job_id for job in await store.claim(10, idle=idle)]


async def found(store: JobStore, job_id: str) -> Job:
    job = await store.get(job_id)
    assert job is not None
    return job


@BOTH_DATABASES
async def test_interrupted_jobs_run_alone_and_block_the_others(store: JobStore) -> None:
    first, second = await queue(store, 2)
    assert await claim(store) == [first, second]
    await crash(store, "SIGSEGV")
    (third,) = await queue(store, 1)

    assert await claim(store, idle=False) == []
    assert await claim(store) == [first]
    await store.complete(first)
    assert await claim(store) == [second]
    await store.complete(second)
    assert await claim(store) == [third]


@BOTH_DATABASES
async def test_the_second_crash_fails_a_job_with_the_cause(store: JobStore) -> None:
    guilty, innocent = await queue(store, 2)
    await claim(store)
    await crash(store, "SIGSEGV")
    await claim(store)

    await crash(store, "SIGABRT")

    failed = await found(store, guilty)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.endswith("crashed 2 times; the last time the server crashed: SIGABRT")
    assert (await found(store, innocent)).status == "pending"


@BOTH_DATABASES
async def test_an_end_without_a_known_crash_counts_as_an_attempt(store: JobStore, database: Database) -> None:
    killed, beside = await queue(store, 2)
    for _ in range(MAX_ATTEMPTS):
        await claim(store)
        await store.membership.leave()
        store = await started(database)
        await store.requeue_interrupted()

    assert (await found(store, killed)).status == "failed"
    assert (await found(store, beside)).status == "pending"


@BOTH_DATABASES
async def test_a_requeued_job_runs_concurrently_with_others(store: JobStore) -> None:
    first, second = await queue(store, 2)
    await claim(store)
    await store.requeue(first)
    await store.requeue(second)

    assert await claim(store, idle=False) == [first, second]


async def test_a_job_that_crashes_the_engine_fails_and_concurrent_jobs_complete(settings: Settings) -> None:
    def die() -> None:
        raise WorkerDied("The engine's process ended unexpectedly (exit code -11)")

    model = FatalModel(die)
    async with serving(settings, model) as client:
        texts = ["One.", "This will crash.", "Two.", "Three."]
        jobs = [await submit(client, text=text) for text in texts]
        statuses = [(await wait_until_finished(client, job))["status"] for job in jobs]
        error = (await wait_until_finished(client, jobs[1]))["error"]

    assert statuses == ["completed", "failed", "completed", "completed"]
    assert "exit code -11" in error
    assert model.batches[-1] == {"[S1] This will crash."}
    assert len(model.batches) == 2


async def test_a_job_whose_engine_is_lost_runs_again(settings: Settings) -> None:
    lost = [EngineLost("killed")]

    def lose() -> None:
        if lost:
            raise lost.pop()

    async with serving(settings, FatalModel(lose), timing=Timing(job_retry_s=0.01)) as client:
        job_id = await submit(client, text="This will crash.")

        assert (await wait_until_finished(client, job_id))["status"] == "completed"
    assert not lost
