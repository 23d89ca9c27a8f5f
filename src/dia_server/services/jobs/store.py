"""Jobs in the database. Each change of status is one transaction that first checks the old status:

    pending -> processing -> completed | failed
    pending | processing -> cancelled
    processing -> pending       to run again, after an interruption or if the engine refused the job
    completed -> failed         if the result is missing from the outputs folder

A `processing` job belongs to the server that its `owner` names. Only its owner may change it, except that any
server may cancel it, and that another server takes it over once its owner is gone (see `Membership`).

SQLite runs one write transaction at a time; on PostgreSQL, a transaction locks the jobs whose status it
checks. So a job finishes exactly once, even if the worker, a cancellation and a crash race.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast
from uuid import uuid4

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, CursorResult, Select, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from dia_server.db import models
from dia_server.db.advisory_lock import lock_between_servers
from dia_server.db.engine import Database
from dia_server.db.models import JobStatus as JobStatus
from dia_server.db.models import Server, now
from dia_server.services.jobs import totals
from dia_server.services.peers import Membership
from dia_server.services.speech.request import AudioFormat, Speech, SpeechRequest
from dia_server.services.speech.timestamps import Timestamp
from dia_server.services.speech.usage import Usage
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot

PREVIEW = 100
"""Maximum characters of a job's text shown in lists."""
UNFINISHED: tuple[JobStatus, ...] = ("pending", "processing")
MAX_ATTEMPTS = 25
"""Attempts after which a job fails if the server ended during each: the job is assumed to be the cause."""
MAX_CRASHES = 2
"""Number of crashes during a job after which it fails. After the first, it runs without other queued jobs."""
AGAIN: dict[str, Any] = {"status": "pending", "owner": None, "progress": 0.0}
"""Values of a job that is set back to pending."""
FORGOTTEN_S = 60.0
"""Seconds after which a job that its owner does not run counts as forgotten."""
UNREADABLE = "The request cannot be read: it was written by another version, or is damaged"

Row = models.Job
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as stored in the database; times are in UTC, durations in seconds."""

    job_id: str
    status: JobStatus
    request: SpeechRequest | None
    """The request with its seed, so that a retry generates the same audio; None if it cannot be read."""
    voices: CastSnapshot | None
    """The voices as they were when the job was accepted; None if they cannot be read."""
    progress: float
    """Share of the audio that is generated, 0 to 1."""
    error: str | None
    file: str | None
    audio_s: float | None
    generation_s: float | None
    retries: int
    """Number of retries of faulty segments."""
    faults: tuple[str, ...]
    """Names of the faults that remain in the audio."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    alone: bool
    """Whether an earlier attempt was interrupted; if so, no other queued job may run at the same time."""


class FormerPartner(Struct, frozen=True):
    """The field of a row without a CastSnapshot that has the partner; its other fields are the voice."""

    second: VoiceSnapshot | None = None


class ReferenceOfVoice(Struct, frozen=True):
    """The field of a VoiceSnapshot that names a file in the folder of references."""

    reference: str | None = None


class ReferenceOfCast(ReferenceOfVoice, frozen=True):
    """The same of a CastSnapshot, or of a row that has a VoiceSnapshot in its place."""

    voice: ReferenceOfVoice = ReferenceOfVoice()


class RequestSummary(Struct, frozen=True):
    """The fields of a request shown in lists."""

    voice_id: str
    response_format: AudioFormat


@dataclass(frozen=True, slots=True)
class JobListItem:
    """A job as shown in lists."""

    job_id: str
    status: JobStatus
    created_at: datetime
    text_preview: str
    request: str
    """JSON of the `SpeechRequest`."""
    retries: int
    faults: tuple[str, ...]
    progress: float
    """Share of the audio that is generated, 0 to 1."""
    error: str | None
    audio_s: float | None

    @property
    def request_summary(self) -> RequestSummary | None:
        """The parsed fields of the request; None if this version cannot read it."""
        return _read(self.request, RequestSummary)


def file_name(job_id: str, request: SpeechRequest) -> str:
    """Return the name of a job's result in the outputs folder."""
    return f"{job_id}.{request.response_format}"


def format_of(file: str) -> AudioFormat:
    """Return the audio format of a result, from a name that `file_name` returned."""
    return cast(AudioFormat, file.rpartition(".")[2])


def new_job(request: SpeechRequest, voices: CastSnapshot, status: JobStatus, owner: str) -> Row:
    return Row(
        job_id=str(uuid4()),
        status=status,
        request=msgspec.json.encode(request).decode(),
        voice=msgspec.json.encode(voices).decode(),
        text_preview=request.text[:PREVIEW],
        owner=None if status == "pending" else owner,
        attempts=int(status != "pending"),
        crashes=0,
        created_at=now(),
        started_at=None if status == "pending" else now(),
        progress=0.0,
        retries=0,
        faults=(),
    )


class JobStore:
    def __init__(self, database: Database, membership: Membership) -> None:
        self.membership = membership
        self._sessions = database.sessions
        self._reads = database.reads

    async def add(self, request: SpeechRequest, voices: CastSnapshot, status: JobStatus) -> Job:
        """Insert and return a job; its `status` is `pending`, or `processing` if the caller starts it."""
        row = new_job(request, voices, status, self.membership.server_id)
        async with self._sessions.begin() as session:
            if status == "processing":
                await self.membership.require_row(session)
            session.add(row)
        return _job(row)

    async def get(self, job_id: str) -> Job | None:
        async with self._reads() as session:
            row = await session.scalar(select(Row).where(Row.job_id == job_id))
            return None if row is None else _job(row)

    async def timestamps(self, job_id: str) -> Sequence[Timestamp] | None:
        """Return the timestamps of a job's result; None if it has none, or this version cannot read them."""
        async with self._reads() as session:
            stored = await session.scalar(select(Row.timestamps).where(Row.job_id == job_id))
        return None if stored is None else _read(stored, list[Timestamp])

    async def newest(self, status: JobStatus | None, limit: int) -> Sequence[JobListItem]:
        about: Sequence[Any] = Row.job_id, Row.status, Row.created_at, Row.text_preview, Row.request
        result: Sequence[Any] = Row.retries, Row.faults, Row.progress, Row.error, Row.audio_s
        query = select(*about, *result)
        if status is not None:
            query = query.where(Row.status == status)
        async with self._reads() as session:
            rows = await session.execute(query.order_by(Row.number.desc()).limit(limit))
            return [JobListItem(*row) for row in rows]

    async def unfinished(self) -> Mapping[JobStatus, int]:
        """Map `pending` and `processing` to the number of such jobs; finished jobs do not slow the query."""
        async with self._reads() as session:
            found = dict((await session.execute(unfinished_jobs())).all())
            return {status: found.get(status, 0) for status in UNFINISHED}

    async def claim(self, limit: int, *, idle: bool = True) -> Sequence[Job]:
        """Set the oldest pending jobs, up to `limit`, to `processing` and return them.

        `idle` says that no job claimed earlier is running. Only then is a job claimed that has to run alone,
        and no other job with it. Jobs whose request or voice cannot be read are failed, because they would
        block the queue.
        """
        oldest = (
            select(Row)
            .where(Row.status == "pending")
            .order_by(Row.number)
            .limit(limit)
            .with_for_update(skip_locked=True)  # jobs that another server claims; SQLite has no row locks
        )
        async with self._sessions.begin() as session:
            await self.membership.require_row(session)
            while rows := _runnable((await session.scalars(oldest)).all(), idle=idle):
                claimed = []
                for row in rows:
                    row.status, row.started_at, row.attempts = "processing", now(), row.attempts + 1
                    row.owner = self.membership.server_id
                    job = _job(row)
                    if job.request is not None and job.voices is not None:
                        claimed.append(job)
                    else:
                        await _fail(session, Row.job_id == job.job_id, UNREADABLE)
                if claimed:
                    return claimed
        return []

    async def references(self) -> set[str]:
        """Return the digests of the references that unfinished jobs need."""
        query = select(Row.voice).where(Row.status.in_(UNFINISHED), Row.voice.contains('"reference":"'))
        async with self._reads() as session:
            casts = [_read(text, ReferenceOfCast) for text in await session.scalars(query)]
        return {name for cast in casts if cast and (name := cast.reference or cast.voice.reference)}

    async def requeue(self, job_id: str) -> None:
        """Set a job that could not be started back to pending, without counting an attempt."""
        async with self._sessions.begin() as session:
            await _change(session, self._own(job_id), **AGAIN, attempts=Row.attempts - 1)

    async def record_crash(self, job_id: str, cause: str) -> None:
        """Set a job back to pending after a crash of its engine process, or fail it after MAX_CRASHES.

        `cause` is the cause of the crash, for the job's error.
        """
        async with self._sessions.begin() as session:
            await _record_crash(session, cause, self._own(job_id))

    async def save_progress(self, progress: Mapping[str, float]) -> Sequence[str]:
        """Store the progress of running jobs, 0 to 1; return the ids of those that this server has lost.

        Such a job was cancelled by another server, or was taken over.
        """
        lost = []
        async with self._sessions.begin() as session:
            for job_id, share in sorted(progress.items()):
                if not await _change(session, self._own(job_id), progress=share):
                    lost.append(job_id)
        return lost

    async def record_result(self, job_id: str, file: str, speech: Speech) -> bool:
        """Store the file name, usage and timestamps of a job's result; return False if the job is lost.

        Call it before the file is written. So, after a restart, a `processing` job whose file exists is
        completed, not generated again.
        """
        usage = speech.usage
        async with self._sessions.begin() as session:
            result = {
                "file": file,
                "audio_s": usage.audio_s,
                "generation_s": usage.generation_s,
                "tokens": usage.tokens,
                "retries": usage.retries,
                "faults": usage.faults,
                "timestamps": _json(speech.timestamps),
            }
            return bool(await _change(session, self._own(job_id), **result))

    async def complete(self, job_id: str) -> JobStatus | None:
        """Set a job to completed and count it, once its file is written; return its status afterwards.

        The job keeps its status if it is not a running job of this server: `cancelled`, or whatever another
        server that took it over has made of it. None: it does not exist.
        """
        async with self._sessions.begin() as session:
            row = await session.scalar(select(Row).where(Row.job_id == job_id).with_for_update())
            if row is not None and row.status == "processing" and row.owner == self.membership.server_id:
                await _complete(session, row)
            return None if row is None else row.status

    async def fail(self, job_id: str, error: str) -> None:
        async with self._sessions.begin() as session:
            await _fail(session, self._own(job_id), error)

    async def mark_missing(self, job_id: str) -> None:
        """Fail a completed job whose file is missing; the totals still count it as successful."""
        error = "The result is missing from the outputs folder"
        async with self._sessions.begin() as session:
            await _change(session, and_(Row.job_id == job_id, Row.status == "completed"), **_failure(error))

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job; return False if it is finished or does not exist."""
        unfinished = and_(Row.job_id == job_id, Row.status.in_(UNFINISHED))
        async with self._sessions.begin() as session:
            return bool(await _change(session, unfinished, status="cancelled", file=None, finished_at=now()))

    async def delete(self, job_ids: Sequence[str]) -> None:
        """Delete the given jobs, except unfinished ones."""
        async with self._sessions.begin() as session:
            await session.execute(delete(Row).where(Row.job_id.in_(job_ids), Row.status.not_in(UNFINISHED)))

    async def add_completed(self, job_id: str, speech: Speech, file: str) -> None:
        """Insert a completed job for a synchronous request, and count it."""
        usage = speech.usage
        row = new_job(speech.request, speech.voices, "completed", self.membership.server_id)
        row.job_id, row.file, row.progress, row.finished_at = job_id, file, 1.0, now()
        row.audio_s, row.generation_s, row.tokens = usage.audio_s, usage.generation_s, usage.tokens
        row.retries, row.faults = usage.retries, usage.faults
        row.timestamps = _json(speech.timestamps)
        async with self._sessions.begin() as session:
            session.add(row)
            await totals.count(session, usage)

    async def count(self, usage: Usage | None) -> None:
        """Count a request that has no job; `usage` is None for a failed request."""
        async with self._sessions.begin() as session:
            await totals.count(session, usage)

    async def interrupted(self, crashed: Collection[str] = ()) -> Mapping[str, str | None]:
        """Map the ids of `processing` jobs whose owner is gone to their file names.

        `crashed` are the ids of servers that have crashed, but still have a row. The name is None if the
        generation had not finished.
        """
        async with self._reads() as session:
            rows = await session.execute(select(Row.job_id, Row.file).where(self._interrupted(crashed)))
            return dict(rows.all())

    async def complete_interrupted(self, job_id: str, crashed: Collection[str] = ()) -> None:
        """Complete an interrupted job whose file exists, unless another server has taken it over."""
        async with self._sessions.begin() as session:
            interrupted = select(Row).where(Row.job_id == job_id, self._interrupted(crashed))
            if row := await session.scalar(interrupted.with_for_update()):
                await _complete(session, row)

    async def requeue_crashed(self, crashed: Mapping[str, str]) -> None:
        """Count a crash for each job of the `crashed` servers; maps their ids to the causes.

        The jobs are set back to pending, or failed after MAX_CRASHES.
        """
        async with self._sessions.begin() as session:
            for server_id, cause in crashed.items():
                which = self.membership.crashed(Row.owner, server_id)
                await _record_crash(session, f"the server crashed: {cause}", which)
            await session.execute(delete(Server).where(Server.server_id.in_(crashed)))

    async def requeue_interrupted(self) -> None:
        """Set interrupted jobs back to pending; fail those started MAX_ATTEMPTS times."""
        async with self._sessions.begin() as session:
            await lock_between_servers(session, "takeover")
            await _change(session, and_(self._interrupted(), Row.attempts < MAX_ATTEMPTS), **AGAIN)
            error = f"The server stopped {MAX_ATTEMPTS} times while this job was running"
            await _fail(session, self._interrupted(), error)

    async def requeue_forgotten(self, running: Collection[str]) -> None:
        """Set jobs of this server that it does not run back to pending; `running` are the ids of the others.

        The answer to the transaction that claimed them was lost. Jobs that began in the last FORGOTTEN_S may
        be about to run.
        """
        before = now() - timedelta(seconds=FORGOTTEN_S)
        forgotten = and_(
            Row.status == "processing",
            Row.owner == self.membership.server_id,
            Row.started_at < before,
            Row.job_id.not_in(running),
        )
        async with self._sessions.begin() as session:
            await _change(session, forgotten, **AGAIN, attempts=Row.attempts - 1)

    async def finished_before(self, moment: datetime, limit: int) -> Mapping[str, str | None]:
        """Map the ids of up to `limit` jobs finished before `moment` to their files or None, oldest first."""
        query = select(Row.job_id, Row.file).where(Row.finished_at < moment).order_by(Row.finished_at)
        async with self._reads() as session:
            return dict((await session.execute(query.limit(limit))).all())

    async def oldest(self) -> datetime | None:
        """Return the creation time of the oldest job, None if there are no jobs."""
        async with self._reads() as session:
            return await session.scalar(select(Row.created_at).order_by(Row.number).limit(1))

    async def files_after(self, number: int, limit: int) -> Sequence[tuple[int, str, JobStatus, str]]:
        """Return (number, id, status, file) of the first `limit` jobs above `number` that have a file.

        PostgreSQL does not commit jobs in the order of their numbers, so pages read by this method may lack
        jobs that were committed after the first page was read. They have all that were committed before.
        """
        query = (
            select(Row.number, Row.job_id, Row.status, Row.file)
            .where(Row.number > number, Row.file.is_not(None))
            .order_by(Row.number)
        )
        async with self._reads() as session:
            rows = await session.execute(query.limit(limit))
            return [(number, job_id, status, file or "") for number, job_id, status, file in rows]

    def _own(self, job_id: str) -> ColumnElement[bool]:
        """Return the condition that the job is running on this server."""
        return and_(Row.job_id == job_id, Row.status == "processing", Row.owner == self.membership.server_id)

    def _interrupted(self, crashed: Collection[str] = ()) -> ColumnElement[bool]:
        gone = or_(self.membership.orphaned(Row.owner), Row.owner.in_(crashed))
        return and_(Row.status == "processing", gone)


def unfinished_jobs() -> Select[JobStatus, int]:
    """Return the query that counts the pending and the processing jobs by status; the index covers it."""
    return select(Row.status, func.count()).where(Row.status.in_(UNFINISHED)).group_by(Row.status)


async def _change(session: AsyncSession, which: ColumnElement[bool], **values: Any) -> int:
    """Update the jobs that `which` selects; return their number."""
    result = await session.execute(update(Row).where(which).values(**values))
    assert isinstance(result, CursorResult)
    return result.rowcount


async def _complete(session: AsyncSession, row: Row) -> None:
    """Set a job, which the transaction has locked, to completed, and count it."""
    row.status, row.progress, row.finished_at = "completed", 1.0, now()
    usage = Usage(
        generation_s=row.generation_s or 0,
        tokens=row.tokens or 0,
        audio_s=row.audio_s or 0,
        retries=row.retries,
    )
    await totals.count(session, usage)


async def _fail(session: AsyncSession, which: ColumnElement[bool], error: str) -> None:
    """Fail the jobs that `which` selects, and count them."""
    for _ in range(await _change(session, which, **_failure(error))):
        await totals.count(session, None)


def _runnable(rows: Sequence[Row], *, idle: bool) -> Sequence[Row]:
    """Return the `rows` that may be claimed now: those before the first row that has to run alone.

    If that row is the first one, returns it alone if `idle` (see `claim`), else nothing.
    """
    for count, row in enumerate(rows):
        if row.attempts or row.crashes:
            return rows[: count or int(idle)]
    return rows


async def _record_crash(session: AsyncSession, cause: str, which: ColumnElement[bool]) -> None:
    """Count a crash, instead of an attempt, for each `processing` job that `which` selects.

    Sets the job back to pending, or fails it after MAX_CRASHES.
    """
    crashed = select(Row).where(Row.status == "processing", which).with_for_update()
    for row in await session.scalars(crashed):
        row.crashes, row.attempts = row.crashes + 1, row.attempts - 1
        if row.crashes < MAX_CRASHES:
            row.status, row.owner, row.progress = "pending", None, 0.0
        else:
            error = f"Generation crashed {MAX_CRASHES} times; the last time {cause}"
            row.status, row.error, row.file, row.finished_at = "failed", error, None, now()
            await totals.count(session, None)


def _failure(error: str) -> dict[str, Any]:
    return {"status": "failed", "error": error, "file": None, "finished_at": now()}


def _json(timestamps: Sequence[Timestamp] | None) -> str | None:
    return None if timestamps is None else msgspec.json.encode(timestamps).decode()


def _read(text: str, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        return None


def _read_voices(text: str) -> CastSnapshot | None:
    """Return the voices of a job; rows of former versions have the voice, and in it the partner."""
    if (voices := _read(text, CastSnapshot)) is not None:
        return voices
    voice, partner = _read(text, VoiceSnapshot), _read(text, FormerPartner)
    return None if voice is None or partner is None else CastSnapshot(voice, partner.second)


def _job(row: Row) -> Job:
    return Job(
        job_id=row.job_id,
        status=row.status,
        request=_read(row.request, SpeechRequest),
        voices=_read_voices(row.voice),
        progress=row.progress,
        error=row.error,
        file=row.file,
        audio_s=row.audio_s,
        generation_s=row.generation_s,
        retries=row.retries,
        faults=row.faults,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        alone=row.attempts + row.crashes > 1,
    )
