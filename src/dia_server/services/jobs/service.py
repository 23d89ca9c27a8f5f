"""Jobs: durable generations, whose result is downloaded later."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.readiness import require_loadable
from dia_server.errors import JobNotComplete, NotFound, ServerError, nothing_begun
from dia_server.services.jobs.outputs import Outputs
from dia_server.services.jobs.references import JobReferences
from dia_server.services.jobs.store import Job, JobListItem, JobStatus, JobStore, format_of
from dia_server.services.jobs.worker import JobWorker
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.request import MEDIA_TYPES, PreparedRequest, SpeechRequest
from dia_server.services.speech.service import OnProgress, SpeechService
from dia_server.services.speech.timestamps import Granularity, Timestamp
from dia_server.services.voices.references import Reference


@dataclass(frozen=True, slots=True)
class Result:
    audio: AsyncIterator[bytes]
    size: int
    """Size of the audio file in bytes."""
    media_type: str
    job: Job


@dataclass(frozen=True, slots=True)
class RunningJob:
    job_id: str
    task: asyncio.Task[ServerError | None]


class JobService:
    def __init__(
        self,
        engine: AnyEngine,
        speech: SpeechService,
        store: JobStore,
        worker: JobWorker,
        outputs: Outputs,
        references: JobReferences,
    ) -> None:
        self._engine = engine
        self._speech = speech
        self._store = store
        self._worker = worker
        self._outputs = outputs
        self._references = references

    async def submit(self, request: SpeechRequest, reference: Reference | None = None) -> Job:
        """Accept a job; once this returns, the job survives a restart or crash of the server.

        Raises InvalidVoiceId, TextTooLong, Invalid, PromptNotUsable, StorageUnavailable, Overloaded if the
        references of unfinished jobs exceed their limit, and ModelNotLoaded if the model failed to load (a
        job is accepted while the model is loading).
        """
        job, _ = await self._add(request, reference, "pending", make_anchors=False)
        self._worker.wake()
        return job

    async def begin(
        self,
        request: SpeechRequest,
        delivery: Delivery,
        on_progress: OnProgress,
        reference: Reference | None = None,
    ) -> RunningJob:
        """Accept a job and start it at once, since its client waits for the result; raises as `submit`."""

        async def begin() -> RunningJob:
            job, prepared = await self._add(request, reference, "processing", make_anchors=True)
            return RunningJob(job.job_id, self._worker.begin(job, delivery, on_progress, prepared))

        # shielded: a job stored as running must run, even if the caller is cancelled
        return await asyncio.shield(begin())

    async def _add(
        self, request: SpeechRequest, reference: Reference | None, status: JobStatus, *, make_anchors: bool
    ) -> tuple[Job, PreparedRequest]:
        with nothing_begun():
            require_loadable(self._engine)
        prepared = await self._speech.prepare(request, reference=reference, make_anchors=make_anchors)
        async with self._references.keep(reference):
            return await self._store.add(prepared.request, prepared.voices, status), prepared

    async def get(self, job_id: str) -> Job:
        """Return a job with its current progress; raises NotFound."""
        job = await self._store.get(job_id)
        if job is None:
            raise NotFound(f"Job {job_id!r} does not exist", param="job_id")
        progress = self._worker.progress(job_id)
        return job if progress is None else replace(job, progress=progress)

    async def newest(self, status: JobStatus | None, limit: int) -> Sequence[JobListItem]:
        """Return up to `limit` jobs of `status` (None: any), newest first, with their current progress."""
        items = await self._store.newest(status, limit)
        now = ((item, self._worker.progress(item.job_id)) for item in items)
        return [item if progress is None else replace(item, progress=progress) for item, progress in now]

    async def result(self, job_id: str) -> Result:
        """Return the audio of a completed job.

        Raises NotFound if the job or its file does not exist, JobNotComplete if the job has another status,
        StorageUnavailable if the file cannot be read.
        """
        job = await self.get(job_id)
        file = self._require_completed(job)
        try:
            size, audio = await self._outputs.open(file)
        except FileNotFoundError:
            raise NotFound(
                f"The result of job {job_id!r} is missing from the outputs folder", param="job_id"
            ) from None
        return Result(audio, size, MEDIA_TYPES[format_of(file)], job)

    async def timestamps(self, job_id: str) -> tuple[Granularity, Sequence[Timestamp]]:
        """Return what the timestamps of a completed job tell the time of, and the timestamps.

        Raises NotFound if the job does not exist or has none, JobNotComplete if it has another status.
        """
        job = await self.get(job_id)
        self._require_completed(job)
        granularity = None if job.request is None else job.request.timestamps
        if granularity is None or (found := await self._store.timestamps(job_id)) is None:
            raise NotFound(
                f"Job {job_id!r} has no timestamps; its request has to ask for them by `timestamps`",
                param="job_id",
            )
        return granularity, found

    @staticmethod
    def _require_completed(job: Job) -> str:
        """Return the name of the job's result; raises JobNotComplete."""
        if job.status != "completed" or job.file is None:
            cause = f": {job.error}" if job.error else ""
            raise JobNotComplete(f"Job {job.job_id!r} is {job.status}{cause}", param="job_id")
        return job.file

    async def remove(self, job_id: str) -> Literal["cancelled", "deleted"]:
        """Cancel an unfinished job, or delete a finished job and its file; return which. Raises NotFound.

        The file is deleted first: on a full disk, SQLite needs the freed space to delete the row.
        """
        if await self.cancel(job_id):
            return "cancelled"
        job = await self.get(job_id)
        if job.file is not None:
            await self._outputs.remove(job.file)
        await self._store.delete([job_id])
        return "deleted"

    async def cancel(self, job_id: str) -> bool:
        """Store that a job is cancelled, then stop it and wait for its end.

        Returns False if the job is finished or does not exist.
        """
        if not await self._store.cancel(job_id):
            return False
        await self._worker.cancel(job_id)
        return True

    async def abandon(self, job_id: str) -> None:
        """Stop the job of a disconnected client at once, then store that it was cancelled.

        Retries while the database is unavailable, until the server stops.
        """
        await self._worker.abandon(job_id)

    async def wait(self, running: RunningJob) -> Job:
        """Wait until a running job has ended, then return it as stored; raise its error if it failed."""
        if (error := await asyncio.shield(running.task)) is not None:
            raise error
        return await self.get(running.job_id)
