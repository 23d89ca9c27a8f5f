import json

import pytest
from sqlalchemy import select

from dia_server.db import models
from dia_server.db.engine import Database
from dia_server.services.jobs.store import Job, JobStore
from dia_server.services.peers import Membership
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot
from tests.postgres import BOTH_DATABASES

pytestmark = BOTH_DATABASES

REQUEST = SpeechRequest(text="Hello", voice_id="aria", seed=1)


@pytest.fixture
async def store(database: Database) -> JobStore:
    membership = Membership(database)
    await membership.join()
    return JobStore(database, membership)


async def running(store: JobStore) -> str:
    return (await store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "processing")).job_id


async def found(store: JobStore, job_id: str) -> Job:
    job = await store.get(job_id)
    assert job is not None
    return job


async def test_progress_is_stored_for_running_jobs_only(store: JobStore) -> None:
    jobs = {name: await running(store) for name in ("runs", "completed", "put back")}
    await store.complete(jobs["completed"])
    await store.requeue(jobs["put back"])

    await store.save_progress(dict.fromkeys(jobs.values(), 0.5))

    progress = {name: (await found(store, job_id)).progress for name, job_id in jobs.items()}
    assert progress == {"runs": 0.5, "completed": 1.0, "put back": 0.0}


async def test_jobs_are_claimed_once_and_oldest_first(store: JobStore) -> None:
    jobs = [
        (await store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "pending")).job_id for _ in range(3)
    ]

    claimed = [await store.claim(2), await store.claim(2), await store.claim(2)]

    assert [[job.job_id for job in some] for some in claimed] == [jobs[:2], jobs[2:], []]
    assert {job.status for some in claimed for job in some} == {"processing"}


async def test_a_row_of_a_former_version_has_its_voices(store: JobStore, database: Database) -> None:
    former = {"voice_id": "luna", "primary_speaker": "S2", "recording": "a", "reference": "r"}
    former["second"] = {"voice_id": "kai", "anchor": "b"}  # type: ignore[assignment]
    job = await store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "pending")
    async with database.sessions.begin() as session:
        row = await session.scalar(select(models.Job).where(models.Job.job_id == job.job_id))
        assert row is not None
        row.voice = json.dumps(former).replace(": ", ":")

    (claimed,) = await store.claim(1)

    luna = VoiceSnapshot("luna", primary_speaker="S2", recording="a", reference="r")
    assert claimed.voices == CastSnapshot(luna, VoiceSnapshot("kai", anchor="b"))
    assert await store.references() == {"r"}


async def test_a_job_keeps_all_voices(store: JobStore) -> None:
    voices = CastSnapshot(
        VoiceSnapshot("aria", reference="r"),
        None,
        {"S3": VoiceSnapshot("kai"), "voice:x": VoiceSnapshot("x")},
    )
    await store.add(REQUEST, voices, "pending")

    assert (await store.claim(1))[0].voices == voices
    assert await store.references() == {"r"}
