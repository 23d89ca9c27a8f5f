"""Leases: the work of a server that is gone is taken over, that of a living one never."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import select

from dia_server.db.engine import Database
from dia_server.db.models import Job, Server
from dia_server.errors import StorageUnavailable
from dia_server.services.jobs.store import JobStore
from dia_server.services.peers import Heartbeat, Membership
from dia_server.services.speech.request import Speech, SpeechRequest
from dia_server.services.speech.usage import Usage
from dia_server.services.voices.anchor_folder import AnchorFolder
from dia_server.services.voices.candidates import Candidate, CandidateStore
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot
from tests.postgres import BOTH_DATABASES, ON_POSTGRES
from tests.waiting import until

USAGE = Usage(generation_s=1.0, tokens=86, audio_s=1.0, retries=0)
REQUEST = SpeechRequest(text="Hello", voice_id="aria", seed=1)
ENDED_S = -1.0
"""Duration of a lease that has ended when it begins, as if the server had been silent since."""


async def servers(database: Database) -> Sequence[str]:
    async with database.reads() as session:
        return (await session.scalars(select(Server.server_id))).all()


async def running(store: JobStore) -> str:
    return (await store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "processing")).job_id


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
async def test_two_heirs_take_a_job_over_once(
    database: Database, other_database: Database, database_url: str
) -> None:
    first, second = Membership(database), Membership(other_database)
    await first.join()
    await second.join()
    stores = [JobStore(database, first), JobStore(other_database, second)]
    dead_database = Database(database_url)
    for _ in range(20):
        dead = Membership(dead_database, lease_s=ENDED_S)
        await dead.join()
        job_id = await running(JobStore(dead_database, dead))

        async def take_over(store: JobStore) -> int:
            await store.membership.bury()
            await store.requeue_interrupted()
            return len(await store.claim(1))

        assert sum(await asyncio.gather(*map(take_over, stores))) == 1
        assert [await store.complete(job_id) for store in stores] in (
            ["completed", "completed"],
            ["processing", "completed"],
        )
    await dead_database.close()


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
async def test_jobs_of_a_server_that_crashed_count_a_crash(database: Database) -> None:
    crashed, other = Membership(database), Membership(database)
    await crashed.join()
    await other.join()
    store = JobStore(database, other)
    ids = [await running(JobStore(database, server)) for server in (crashed, crashed, other)]
    await JobStore(database, crashed).record_result(
        ids[0], "a.wav", Speech(REQUEST, CastSnapshot(VoiceSnapshot("aria")), b"", USAGE)
    )

    crashes = {crashed.server_id: "SIGSEGV", "unknown": "SIGABRT"}
    assert (await store.interrupted(crashes)).keys() >= {ids[0], ids[1]}
    await store.complete_interrupted(ids[0], crashes)
    await store.requeue_crashed(crashes)

    assert [await status_of(store, job_id) for job_id in ids] == ["completed", "pending", "processing"]
    assert crashed.server_id not in await servers(database)


@BOTH_DATABASES
async def test_a_crash_of_an_unknown_server_is_that_of_the_only_one(database: Database) -> None:
    """Where processes are not forked, the main process does not learn the id of the worker's server."""
    former, other = Membership(database), Membership(database)
    await former.join()
    await other.join()
    job_id = await running(JobStore(database, former))

    await JobStore(database, other).requeue_crashed({"": "SIGSEGV"})

    async with database.reads() as session:
        row = (await session.scalars(select(Job).where(Job.job_id == job_id))).one()
    assert (row.status, row.crashes) == (("processing", 0) if database.shared else ("pending", 1))


@ON_POSTGRES
async def test_a_server_whose_work_was_taken_over_begins_none(database: Database) -> None:
    silent, heir = Membership(database, lease_s=ENDED_S), Membership(database)
    await silent.join()
    await heir.join()
    store = JobStore(database, silent)
    await store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "pending")
    await heir.bury()

    for begin in (lambda: store.claim(1), lambda: running(store)):
        with pytest.raises(StorageUnavailable, match="joining it again"):
            await begin()

    assert not await silent.renew()
    assert len(await store.claim(1)) == 1


@ON_POSTGRES
async def test_a_job_that_its_server_has_forgotten_runs_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the transaction that claimed it was lost."""
    membership = Membership(database)
    await membership.join()
    store = JobStore(database, membership)
    known, forgotten = await running(store), await running(store)

    await store.requeue_forgotten([known])
    assert await status_of(store, forgotten) == "processing"  # it may be about to run

    monkeypatch.setattr("dia_server.services.jobs.store.FORGOTTEN_S", 0)
    await store.requeue_forgotten([known])
    assert [await status_of(store, job_id) for job_id in (known, forgotten)] == ["processing", "pending"]


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
    assert calls.index("bury") >= 3
    assert calls[:3] == ["renew", "renew", "renew"]


@ON_POSTGRES
async def test_the_lease_is_renewed_while_work_is_taken_over(database: Database) -> None:
    """A takeover waits for files, which may be slow."""
    renewals = 0

    class Counted(Membership):
        async def renew(self) -> bool:
            nonlocal renewals
            renewals += 1
            return await super().renew()

    begun = asyncio.Event()

    async def take_over() -> None:
        begun.set()
        await asyncio.Event().wait()

    membership = Counted(database)
    await membership.join()
    heartbeat = Heartbeat(membership, take_over, interval_s=0.01)
    heartbeat.start()
    await begun.wait()
    before = renewals
    await until(lambda: renewals > before + 2)
    await heartbeat.stop()
