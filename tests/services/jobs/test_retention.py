import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from time import time
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from dia_server.configuration import default_config
from dia_server.db.engine import Database
from dia_server.db.models import Job, now
from dia_server.errors import Overloaded, PromptNotUsable, StorageUnavailable
from dia_server.services.config import ConfigService
from dia_server.services.durable_files import GRACE_S
from dia_server.services.jobs.outputs import MARKER, OutputsFolder
from dia_server.services.jobs.references import JobReferences
from dia_server.services.jobs.retention import Retention
from dia_server.services.jobs.store import JobStatus, JobStore, file_name
from dia_server.services.peers import Leadership, Membership
from dia_server.services.speech.request import Speech, SpeechRequest
from dia_server.services.speech.usage import Usage
from dia_server.services.voices.reference_files import ReferenceFolder
from dia_server.services.voices.references import Clip, Reference
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot
from dia_server.settings import Settings
from tests.waiting import until

REQUEST = SpeechRequest(text="Hello", voice_id="aria", seed=1)
USAGE = Usage(generation_s=1.0, tokens=86, audio_s=1.0, retries=0)


class World:
    """An outputs folder and a jobs table with 24 hours of retention."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder / "audio_outputs"
        self.database = Database(database_url)
        self.store = JobStore(self.database, Membership(self.database))
        self.outputs = OutputsFolder(self.folder)
        self.config = ConfigService(self.database.sessions, default_config(Settings()))
        self.references = JobReferences(self.store, ReferenceFolder(folder / "references"))
        self.leadership = Leadership(leads=True)
        self.retention = Retention(
            self.store, self.outputs, self.config, self.leadership, cleanings=[self.references.sweep]
        )

    async def job(self, status: JobStatus, age_hours: float = 0) -> str:
        """Add a job with a result; return its id."""
        job = await self.store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "processing")
        file = file_name(job.job_id, REQUEST)
        await self.store.record_result(
            job.job_id, file, Speech(REQUEST, CastSnapshot(VoiceSnapshot("aria")), b"", USAGE)
        )
        await self.outputs.write(file, b"audio")
        if status == "completed":
            await self.store.complete(job.job_id)
        async with self.database.sessions.begin() as session:
            finished = update(Job).where(Job.job_id == job.job_id, Job.finished_at.is_not(None))
            await session.execute(finished.values(finished_at=now() - timedelta(hours=age_hours)))
        return job.job_id

    async def age_rows(self, hours: float) -> None:
        """Make all jobs as if they had been accepted `hours` hours ago."""
        async with self.database.sessions.begin() as session:
            await session.execute(update(Job).values(created_at=now() - timedelta(hours=hours)))

    async def files(self) -> set[str]:
        return {path.stem for path in self.folder.glob("[!.]*")}

    async def rows(self) -> set[str]:
        return {line.job_id for line in await self.store.newest(None, 100)}


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    world = World(tmp_path, database_url)
    await world.database.upgrade()
    await world.store.membership.join()
    await world.outputs.prepare(oldest=None)
    yield world
    await world.database.close()


async def test_references_of_unfinished_jobs_survive_the_sweep(world: World) -> None:
    digests = {}
    statuses: tuple[JobStatus, ...] = ("pending", "processing", "completed")
    for status in statuses:
        clip = Clip(hashlib.sha256(status.encode()).hexdigest(), status.encode())
        async with world.references.keep(Reference(clip, "Words.")):
            voice = CastSnapshot(VoiceSnapshot("aria", reference=clip.digest, reference_transcript="Words."))
            job = await world.store.add(REQUEST, voice, "processing" if status == "completed" else status)
        if status == "completed":
            await world.store.fail(job.job_id, "no audio")
        digests[status] = clip.digest
    await world.store.add(
        REQUEST, CastSnapshot(VoiceSnapshot("aria", audio_prompt_transcript='"reference":"x"')), "pending"
    )
    folder = world.folder.parent / "references"
    assert {file.stem for file in folder.iterdir()} == set(digests.values())
    for file in folder.iterdir():
        os.utime(file, (0, 0))

    await world.retention.sweep()

    assert {file.stem for file in folder.iterdir()} == {digests["pending"], digests["processing"]}
    assert await world.store.references() == {digests["pending"], digests["processing"]}


async def test_a_full_folder_of_references_drops_those_of_finished_jobs_only(world: World) -> None:
    folder = ReferenceFolder(world.folder.parent / "references", max_files=2)
    references = JobReferences(world.store, folder)
    jobs = []
    for content in (b"first", b"second"):
        clip = Clip(hashlib.sha256(content).hexdigest(), content)
        async with references.keep(Reference(clip, "Words.")):
            voice = CastSnapshot(VoiceSnapshot("aria", reference=clip.digest))
            jobs.append(await world.store.add(REQUEST, voice, "processing"))
    third = Reference(Clip(hashlib.sha256(b"third").hexdigest(), b"third"), "Words.")

    with pytest.raises(Overloaded):
        async with references.keep(third):
            pass
    await world.store.fail(jobs[0].job_id, "no audio")
    async with references.keep(third):
        pass
    assert await folder.read(third.clip.digest) == b"third"
    with pytest.raises(PromptNotUsable):
        await folder.read(hashlib.sha256(b"first").hexdigest())


async def test_expired_jobs_are_deleted_and_others_kept(world: World) -> None:
    old = await world.job("completed", age_hours=25)
    young = await world.job("completed", age_hours=23)
    running = await world.job("processing")
    assert await world.files() == {old, young, running}

    await world.retention.sweep()

    assert await world.files() == await world.rows() == {young, running}


async def test_the_space_of_files_is_free_before_their_rows_are_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await world.job("completed", age_hours=25)

    async def full(_: object) -> None:
        raise StorageUnavailable("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "delete", full)
        with pytest.raises(StorageUnavailable, match="full"):
            await world.retention.sweep()
    assert (await world.files(), await world.rows()) == (set(), {old})

    await world.retention.sweep()
    assert await world.rows() == set()


async def test_zero_hours_keep_results_for_ever(world: World) -> None:
    old = await world.job("completed", age_hours=10_000)
    await world.config.update({"output_retention_hours": 0})

    await world.retention.sweep()

    assert await world.rows() == {old}


async def test_a_result_is_read_to_its_end_although_its_job_expires(world: World) -> None:
    job_id = await world.job("completed", age_hours=25)
    _, audio = await world.outputs.open(file_name(job_id, REQUEST))

    await world.retention.sweep()

    assert await world.files() == await world.rows() == set()
    assert [piece async for piece in audio] == [b"audio"]


async def test_an_expired_job_is_kept_while_its_file_cannot_be_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, a file that is being downloaded is in use."""
    in_use, _ = [await world.job("completed", age_hours=25) for _ in range(2)]
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.stem == in_use:
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        await world.retention.sweep()
    assert await world.files() == await world.rows() == {in_use}

    await world.retention.sweep()
    assert await world.files() == await world.rows() == set()


async def test_old_orphans_are_removed_and_other_files_kept(world: World) -> None:
    kept = await world.job("completed")
    await world.age_rows(hours=3)
    old, young = (world.folder / f"{uuid4()}.wav" for _ in range(2))
    for path in (old, young, world.folder / "mine.wav"):
        path.write_bytes(b"left behind")
        os.utime(path, times=(time() - GRACE_S - 60,) * 2)
    os.utime(young, times=(time() - GRACE_S + 60,) * 2)

    await world.retention.sweep()

    assert await world.files() == {kept, young.stem, "mine"}


async def test_results_of_another_database_are_kept(world: World) -> None:
    """The database was lost, or DIA_DATABASE_URL names a new one."""
    theirs = world.folder / f"{uuid4()}.wav"
    theirs.write_bytes(b"made by another")
    os.utime(theirs, times=(0, 0))
    await world.retention.sweep()
    assert theirs.exists()

    await world.job("completed")
    await world.retention.sweep()
    assert theirs.exists()


async def test_a_file_whose_row_is_being_written_is_kept(world: World) -> None:
    await world.job("completed")
    job_id = str(uuid4())
    await world.outputs.write(file_name(job_id, REQUEST), b"audio")
    await world.retention.sweep()
    await world.store.add_completed(
        job_id, Speech(REQUEST, CastSnapshot(VoiceSnapshot("aria")), b"", USAGE), file_name(job_id, REQUEST)
    )
    await world.retention.sweep()

    assert job_id in await world.files() == await world.rows()


async def test_a_completed_job_without_its_file_fails(world: World) -> None:
    job_id = await world.job("completed")
    await world.outputs.remove(file_name(job_id, REQUEST))

    await world.retention.sweep()

    job = await world.store.get(job_id)
    assert job is not None
    assert (job.status, job.error) == ("failed", "The result is missing from the outputs folder")


async def test_an_unreadable_folder_fails_no_job(world: World) -> None:
    await world.job("completed")
    away = world.folder.rename(world.folder.with_name("away"))
    with pytest.raises(StorageUnavailable):
        await world.retention.sweep()

    away.rename(world.folder)
    await world.retention.sweep()
    assert await world.files() == await world.rows()
    assert len(await world.store.newest("completed", 10)) == 1


async def test_an_unmounted_disk_fails_no_job(
    world: World,
) -> None:
    old = await world.job("completed")
    mounted = world.folder.rename(world.folder.with_name("elsewhere"))
    world.folder.mkdir()

    await world.outputs.prepare(oldest=f"{old}.wav")
    meanwhile = await world.job("completed")
    with pytest.raises(StorageUnavailable, match="is its disk mounted"):
        await world.retention.sweep()
    assert {line.job_id for line in await world.store.newest("completed", 10)} == {old, meanwhile}

    world.folder.rename(world.folder.with_name("unmounted"))
    mounted.rename(world.folder)
    await world.outputs.prepare(oldest=f"{old}.wav")
    await world.retention.sweep()
    assert await world.files() == {old}
    assert {line.job_id for line in await world.store.newest("completed", 10)} == {old}


async def test_a_folder_without_marker_is_recognized_by_its_oldest_result(world: World) -> None:
    old, gone = await world.job("completed"), await world.job("completed")
    (world.folder / MARKER).unlink()
    (world.folder / f"{gone}.wav").unlink()

    await world.outputs.prepare(oldest=f"{old}.wav")
    await world.retention.sweep()

    assert await world.files() == {old}
    assert {line.job_id for line in await world.store.newest("completed", 10)} == {old}


async def test_a_folder_created_after_the_start_gets_the_marker(
    world: World,
) -> None:
    rmtree(world.folder)
    world.folder.write_text("not a folder")
    await world.outputs.prepare(oldest=None)
    world.folder.unlink()

    job_id = await world.job("completed")
    await world.retention.sweep()
    assert await world.files() == {job_id}


async def test_one_sweep_deletes_more_than_one_batch(world: World) -> None:
    retention = Retention(world.store, world.outputs, world.config, world.leadership, batch=2)
    for _ in range(5):
        await world.job("completed", age_hours=25)
    young = [await world.job("completed") for _ in range(5)]

    await retention.sweep()

    assert await world.files() == await world.rows() == set(young)


async def test_a_server_that_does_not_lead_cleans_its_own_files_only(world: World) -> None:
    old = await world.job("completed", age_hours=25)
    cleanings = []

    async def clean() -> None:
        cleanings.append(1)

    retention = Retention(
        world.store,
        world.outputs,
        world.config,
        Leadership(leads=False),
        local_cleanings=[clean],
        interval_s=0.01,
    )
    retention.start()
    await until(lambda: len(cleanings) == 2)
    await retention.stop()
    assert await world.files() == await world.rows() == {old}


async def test_a_lower_limit_is_applied_at_once(world: World) -> None:
    await world.job("completed", age_hours=5)
    world.retention.start()
    await world.config.update({"output_retention_hours": 4})

    async def gone() -> bool:
        return not (await world.rows() or await world.files())

    await until(gone)
    await world.retention.stop()


async def test_a_job_that_is_completed_during_a_sweep_keeps_its_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep lists the files after the job stored its file name, but before it wrote the file."""
    job = await world.store.add(REQUEST, CastSnapshot(VoiceSnapshot("aria")), "processing")
    file = file_name(job.job_id, REQUEST)
    await world.store.record_result(
        job.job_id, file, Speech(REQUEST, CastSnapshot(VoiceSnapshot("aria")), b"", USAGE)
    )
    look = world.store.files_after

    async def look_and_complete(number: int, limit: int) -> Any:
        page = await look(number, limit)
        if page:
            await world.store.complete(job.job_id)
        return page

    monkeypatch.setattr(world.store, "files_after", look_and_complete)
    await world.retention.sweep()

    assert [line.status for line in await world.store.newest(None, 1)] == ["completed"]
