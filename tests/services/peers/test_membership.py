"""Leases: the work of a server that is gone is taken over, that of a living one never."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import select

from dia_server.db.engine import Database
from dia_server.db.models import Server
from dia_server.services.jobs.store import JobStore
from dia_server.services.peers import Heartbeat, Membership
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.voices.anchor_folder import AnchorFolder
from dia_server.services.voices.candidates import Candidate, CandidateStore
from dia_server.services.voices.service import Voice
from tests.postgres import BOTH_DATABASES, ON_POSTGRES
from tests.waiting import until

REQUEST = SpeechRequest(text="Hello", voice_id="aria", seed=1)
ENDED_S = -1.0
"""Duration of a lease that has ended when it begins, as if the server had been silent since."""


async def servers(database: Database) -> Sequence[str]:
    async with database.reads() as session:
        return (await session.scalars(select(Server.server_id))).all()


async def running(store: JobStore) -> str:
    return (await store.add(REQUEST, Voice("aria"), "processing")).job_id


async def status_of(store: JobStore, job_id: str) -> str:
    job = await store.get(job_id)
    assert job is not None
    return job.status


@ON_POSTGRES
async def test_only_jobs_of_servers_whose_lease_has_ended_are_taken_over(database: Database) -> None:
    living, dead, heir = Membership(database), Membership(database, lease_s=ENDED_S), Membership(database)
    for membership in (living, dead, heir):
        await membership.join()
    kept, taken = await running(JobStore(database, living)), await running(JobStore(database, dead))

    await heir.bury()
    store = JobStore(database, heir)
    await store.requeue_interrupted()

    assert [await status_of(store, job_id) for job_id in (kept, taken)] == ["processing", "pending"]
    assert set(await servers(database)) == {living.server_id, heir.server_id}
    (claimed,) = await store.claim(8)
    assert (claimed.job_id, claimed.alone) == (taken, True)


@ON_POSTGRES
async def test_a_server_that_was_silent_cannot_change_what_was_taken_from_it(
    database: Database, other_database: Database
) -> None:
    silent, heir = Membership(database, lease_s=ENDED_S), Membership(other_database)
    await silent.join()
    await heir.join()
    late, store = JobStore(database, silent), JobStore(other_database, heir)
    job_id = await running(late)
    await heir.bury()
    await store.requeue_interrupted()
    await store.claim(1)

    for knows in (False, True):
        assert await late.save_progress({job_id: 0.5}) == [job_id]
        assert await late.complete(job_id) == "processing"
        await late.fail(job_id, "too late")
        await late.requeue(job_id)
        await late.record_crash(job_id, "too late")
        assert await status_of(store, job_id) == "processing"
        assert await silent.renew() == knows

    assert await store.complete(job_id) == "completed"


@ON_POSTGRES
async def test_two_heirs_take_a_job_over_once(database: Database, other_database: Database) -> None:
    first, second = Membership(database), Membership(other_database)
    await first.join()
    await second.join()
    stores = [JobStore(database, first), JobStore(other_database, second)]
    for _ in range(20):
        dead = Membership(database, lease_s=ENDED_S)
        await dead.join()
        job_id = await running(JobStore(database, dead))

        async def take_over(store: JobStore) -> int:
            await store.membership.bury()
            await store.requeue_interrupted()
            return len(await store.claim(1))

        assert sum(await asyncio.gather(*map(take_over, stores))) == 1
        assert [await store.complete(job_id) for store in stores] in (
            ["completed", "completed"],
            ["processing", "completed"],
        )


@ON_POSTGRES
async def test_candidates_of_a_dead_server_are_taken_over(database: Database, tmp_path: Path) -> None:
    living, dead, heir = Membership(database), Membership(database, lease_s=ENDED_S), Membership(database)
    for seed, membership in enumerate((living, dead, heir)):
        await membership.join()
        store = CandidateStore(database, AnchorFolder(tmp_path), membership)
        voice_id = f"voice{seed}"
        await store.replace(
            voice_id, [Candidate(voice_id=voice_id, transcript="So.", style="deep", seed=seed)]
        )

    await heir.bury()

    assert [candidate.seed for candidate in await store.take_over()] == [1]
    assert await store.take_over() == []


@BOTH_DATABASES
async def test_a_crash_is_known_by_the_process(database: Database) -> None:
    crashed, other = Membership(database), Membership(database)
    await crashed.join()
    async with database.sessions.begin() as session:
        (row,) = await session.scalars(select(Server))
        row.host, row.pid = "elsewhere", 7

    causes = await other.join({("elsewhere", 7): "SIGSEGV", ("elsewhere", 8): "SIGABRT"})

    assert causes == {crashed.server_id: "SIGSEGV"}
    assert await servers(database) == [other.server_id]


@pytest.mark.sqlite
async def test_on_sqlite_a_new_server_replaces_every_other(database: Database) -> None:
    for _ in range(2):
        membership = Membership(database)
        await membership.join()
    assert await servers(database) == [membership.server_id]

    await membership.leave()
    assert await servers(database) == []


@ON_POSTGRES
async def test_work_is_taken_over_only_after_renewals_in_a_row(database: Database) -> None:
    """So that after an outage, a server gives the others the time to renew their leases."""
    calls: list[str] = []

    class Recorded(Membership):
        async def renew(self) -> bool:
            calls.append("renew")
            return await super().renew()

        async def bury(self) -> None:
            calls.append("bury")

    async def take_over() -> None:
        calls.append("take over")

    membership = Recorded(database)
    await membership.join()
    await membership.leave()  # as if another server had taken over its work
    heartbeat = Heartbeat(membership, take_over, interval_s=0.01)
    heartbeat.start()

    await until(lambda: "take over" in calls)
    await heartbeat.stop()
    assert calls[:5] == ["renew", "renew", "renew", "bury", "take over"]
