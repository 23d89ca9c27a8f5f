"""Two servers on one PostgreSQL: each job is claimed once and ends once."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import select

from dia_server.db import models
from dia_server.db.engine import Database
from dia_server.db.models import Totals
from dia_server.services.jobs.store import JobStore
from dia_server.services.peers import Membership
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot
from tests.postgres import ON_POSTGRES

pytestmark = ON_POSTGRES

REQUEST = SpeechRequest(text="Hello", voice_id="aria", seed=1)


@pytest.fixture
async def stores(database: Database, other_database: Database) -> tuple[JobStore, JobStore]:
    first, second = (JobStore(one, Membership(one)) for one in (database, other_database))
    await first.membership.join()
    await second.membership.join()
    return first, second


async def running(store: JobStore) -> str:
    return (await store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "processing")).job_id


async def counted(database: Database) -> tuple[int, int]:
    """Return the totals of successful and failed requests."""
    async with database.reads() as session:
        totals = (await session.scalars(select(Totals))).one()
        return totals.successful, totals.failed


async def test_each_job_is_claimed_once(stores: tuple[JobStore, JobStore]) -> None:
    jobs, claimed = [], []
    for _ in range(20):
        jobs += [
            (await stores[0].add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "pending")).job_id
            for _ in range(8)
        ]
        for some in await asyncio.gather(*(store.claim(4) for store in (*stores, *stores))):
            claimed += [job.job_id for job in some]
    while some := await stores[1].claim(8):
        claimed += [job.job_id for job in some]

    assert Counter(claimed) == Counter(jobs)


async def test_a_job_is_either_completed_or_cancelled(
    stores: tuple[JobStore, JobStore], database: Database
) -> None:
    completions = 0
    for _ in range(100):
        job_id = await running(stores[0])
        status, cancelled = await asyncio.gather(stores[0].complete(job_id), stores[1].cancel(job_id))

        job = await stores[1].get(job_id)
        assert job is not None
        assert status == job.status
        assert cancelled == (status == "cancelled")
        completions += status == "completed"

    assert await counted(database) == (completions, 0)


async def test_a_job_is_either_completed_or_counts_a_crash(
    stores: tuple[JobStore, JobStore], database: Database
) -> None:
    for _ in range(50):
        job_id = await running(stores[0])
        status, _ = await asyncio.gather(
            stores[0].complete(job_id),
            stores[1].requeue_crashed({stores[0].membership.server_id: "SIGSEGV"}),
        )
        await stores[0].membership.join()

        async with database.reads() as session:
            row = (await session.scalars(select(models.Job).where(models.Job.job_id == job_id))).one()
        assert (row.status, row.crashes) == (("completed", 0) if status == "completed" else ("pending", 1))


async def test_the_totals_count_every_request(stores: tuple[JobStore, JobStore], database: Database) -> None:
    jobs = [await running(stores[number % 2]) for number in range(20)]
    await asyncio.gather(
        *(stores[number % 2].complete(job_id) for number, job_id in enumerate(jobs)),
        *(stores[number % 2].count(None) for number in range(20)),
    )

    assert await counted(database) == (20, 20)
