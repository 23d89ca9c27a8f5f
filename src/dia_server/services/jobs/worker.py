"""The worker: runs jobs in the engine's batch, and stores their results and status.

A job's steps, and what the next start does if the server was killed after the step:

    claim           pending -> processing           generate again from the same row
    generate                                        generate again
    record_result   properties of the result        generate again
    write           the file, atomically            call `complete`: the file exists
    complete        processing -> completed         nothing

Where several servers share a database, they do the same with the jobs of a server that is gone. A server
stops a job that it has lost, because another server has cancelled it or has taken it over.

A job whose attempt was interrupted may have crashed the server. So its next attempt runs without other queued
jobs, and another crash interrupts none of them. After store.MAX_CRASHES crashes, the job fails.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

import structlog

from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.workers import WorkerDied
from dia_server.errors import (
    EngineLost,
    GenerationFailed,
    ModelNotLoaded,
    ObjectStoreUnavailable,
    Overloaded,
    ServerError,
    StorageUnavailable,
)
from dia_server.services.jobs.outputs import Outputs
from dia_server.services.jobs.store import Job, JobStore, file_name
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.request import PreparedRequest, Speech
from dia_server.services.speech.service import OnProgress, SpeechService
from dia_server.services.speech.timestamps import Timestamp

log = structlog.get_logger()

T = TypeVar("T")

RETRY_S = 0.5
"""Seconds between retries, while the model is loading or the database is unavailable."""
PROGRESS_INTERVAL_S = 5.0
"""Seconds between progress writes to the database."""
NOT_THE_JOBS_FAULT = (ModelNotLoaded, Overloaded, ObjectStoreUnavailable)
"""Failures after which a job runs again, without counting an attempt."""


class Stopping(Exception):
    """A database write was given up because the server is stopping; the job counts as interrupted."""


class JobWorker:
    """Runs jobs: `start` and `stop` it with the server, `wake` it after adding a pending job."""

    def __init__(
        self,
        engine: AnyEngine,
        speech: SpeechService,
        store: JobStore,
        outputs: Outputs,
        *,
        retry_s: float = RETRY_S,
        progress_interval_s: float = PROGRESS_INTERVAL_S,
    ) -> None:
        self._engine = engine
        self._speech = speech
        self._store = store
        self._outputs = outputs
        self._retry_s = retry_s
        self._progress_interval_s = progress_interval_s
        self._wake = asyncio.Event()
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []
        self._running: dict[str, asyncio.Task[ServerError | None]] = {}
        self._generations: dict[str, asyncio.Task[Speech]] = {}
        """Tasks that generate the audio. To stop a job, cancel its task here: its task in `_running` must go
        on, to store the status."""
        self._queued: set[str] = set()
        """Ids of running jobs claimed from the queue; the other running jobs have a waiting client."""
        self._alone: str | None = None
        """Id of a running job beside which no other job may be claimed; None if there is none."""
        self._progress: dict[str, float] = {}
        self._backing_off = False
        """Whether to wait before the next claim, because a job could not be run."""

    async def recover(self, crashed: Mapping[str, str]) -> None:
        """Complete the interrupted jobs whose file exists; requeue the others.

        `crashed` maps the ids of servers that are known to have crashed to the causes.
        """
        await self._complete_interrupted(crashed)
        if crashed:
            await self._store.requeue_crashed(crashed)
        await self._store.requeue_interrupted()

    def start(self) -> None:
        """Run pending jobs."""
        self._loops = [asyncio.create_task(self._run_queue()), asyncio.create_task(self._save_progress())]

    async def take_over(self) -> None:
        """Take over the jobs of servers that are gone, and those of this server that it does not know of."""
        await self.recover({})
        await self._store.requeue_forgotten(list(self._running))
        self.wake()

    def pause(self) -> None:
        """Stop claiming jobs and storing progress; running jobs continue."""
        for loop in self._loops:
            loop.cancel()

    async def stop(self, finish_s: float = 0.0) -> None:
        """Wait up to `finish_s` seconds for running jobs; cancel and requeue the rest for the next start.

        Returns when the status of every job is stored, or could not be because the database is unavailable.
        """
        self.pause()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=finish_s)
        self._stopping = True
        for generation in self._generations.values():
            generation.cancel()
        await asyncio.gather(*self._loops, *self._running.values(), return_exceptions=True)

    def wake(self) -> None:
        self._wake.set()

    def progress(self, job_id: str) -> float | None:
        """Return the progress of a job, 0 to 1; None if it is not running."""
        return self._progress.get(job_id)

    def begin(
        self,
        job: Job,
        delivery: Delivery,
        on_progress: OnProgress | None = None,
        prepared: PreparedRequest | None = None,
    ) -> asyncio.Task[ServerError | None]:
        """Start a job whose stored status is `processing`, and return its task.

        The task never raises. Its result is the error with which it failed the job, or None. It is also None
        for a background job whose engine process crashed, which `record_crash` requeues or fails.

        `prepared` is the job's prepared request; None if it is not prepared yet.
        """

        async def keep_progress(audio: bytes, progress: float, timestamps: Sequence[Timestamp]) -> None:
            self._progress[job.job_id] = progress
            if on_progress is not None:
                await on_progress(audio, progress, timestamps)

        async def generate() -> Speech:
            assert job.request is not None
            request = prepared or await self._speech.prepare(job.request, job.voices)
            return await self._speech.render(request, delivery, keep_progress)

        generation = asyncio.create_task(generate())
        task = asyncio.create_task(self._run(job, generation, delivery.background))
        self._generations[job.job_id], self._running[job.job_id] = generation, task
        self._progress[job.job_id] = 0.0
        if delivery.background:
            self._queued.add(job.job_id)
        task.add_done_callback(lambda _: self._forget(job.job_id))
        return task

    async def cancel(self, job_id: str) -> None:
        """Stop a job, if it is running; return once its task has ended. The caller stores the new status."""
        self.drop(job_id)
        if running := self._running.get(job_id):
            await asyncio.wait([running])

    def drop(self, job_id: str) -> None:
        """Stop a job, if it is running, without storing a status."""
        if generation := self._generations.get(job_id):
            generation.cancel()

    async def abandon(self, job_id: str) -> None:
        """Stop a job whose client has disconnected, then store that it was cancelled."""
        await self.cancel(job_id)
        await self._record_end(job_id, lambda: self._store.cancel(job_id))

    async def _complete_interrupted(self, crashed: Collection[str]) -> None:
        for job_id, file in (await self._store.interrupted(crashed)).items():
            if file is not None and await self._result_exists(file):
                await self._store.complete_interrupted(job_id, crashed)

    async def _result_exists(self, file: str) -> bool:
        try:
            return await self._outputs.exists(file)
        except StorageUnavailable as error:
            log.warning("result not readable: generating it again", file=file, error=str(error))
            return False

    def _forget(self, job_id: str) -> None:
        del self._running[job_id], self._progress[job_id]
        self._queued.discard(job_id)
        if self._alone == job_id:
            self._alone = None
        self._wake.set()

    async def _run_queue(self) -> None:
        while True:
            self._wake.clear()
            if self._backing_off:
                self._backing_off = False
                await asyncio.sleep(self._retry_s)
            try:
                await self._start_pending()
                if self._engine.ready:
                    await self._wake.wait()
                    continue
            except StorageUnavailable as error:
                log.warning("jobs waiting for the database", error=str(error), retry_s=self._retry_s)
            except Exception as error:  # later jobs must still be claimed
                log.error("jobs not claimed", exc_info=error)
            await asyncio.sleep(self._retry_s)

    async def _start_pending(self) -> None:
        """Claim and start pending jobs, at most one per engine slot; none beside a job that has to run alone.

        The engine reserves some slots for requests, so the last of these jobs may wait in the engine's queue.
        """
        while self._engine.ready and (free := self._engine.slots - len(self._queued)) > 0:
            if self._alone or not (jobs := await self._store.claim(free, idle=not self._queued)):
                return
            for job in jobs:
                if job.job_id in self._running and not await self._end_former_run(job.job_id):
                    continue
                self._alone = job.job_id if job.alone else None
                self.begin(job, Delivery(background=True))

    async def _end_former_run(self, job_id: str) -> bool:
        """End this server's run of a job that another server had taken over, and that it has claimed again.

        Returns whether the job is still to be run: the former run may have stored its end.
        """
        await self.cancel(job_id)
        job = await self._store.get(job_id)
        return job is not None and job.status == "processing"

    async def _run(self, job: Job, generation: asyncio.Task[Speech], background: bool) -> ServerError | None:
        try:
            speech = await generation
        except asyncio.CancelledError:
            if self._stopping:
                await self._requeue(job)
            return None
        except Exception as error:  # noqa: BLE001 - fails this job only
            if background and isinstance(error, NOT_THE_JOBS_FAULT):
                await self._requeue(job)
                return None
            if background and isinstance(error, WorkerDied | EngineLost):
                cause = str(error)
                await self._record_end(job.job_id, lambda: self._store.record_crash(job.job_id, cause))
                return None
            return await self._fail(job, error)
        finally:
            del self._generations[job.job_id]
            del generation  # the traceback of its exception refers to this frame
        return await self._finish(job, speech)

    async def _finish(self, job: Job, speech: Speech) -> ServerError | None:
        assert job.request is not None
        file = file_name(job.job_id, job.request)
        try:
            if not await self._save(job.job_id, file, speech):
                return None  # lost
            if await self._retry_write(lambda: self._store.complete(job.job_id)) in {"cancelled", None}:
                await self._outputs.remove(file)  # cancelled while the file was written
        except Stopping:
            return None
        except Exception as error:  # noqa: BLE001 - fails this job only
            return await self._fail(job, error)
        return None

    async def _save(self, job_id: str, file: str, speech: Speech) -> bool:
        """Record and write a result; return False if the job is not this server's any more.

        Retries while the object storage is away, so that finished work is not generated twice.
        """
        while await self._retry_write(lambda: self._store.record_result(job_id, file, speech)):
            try:
                await self._outputs.write(file, speech.audio)
            except ObjectStoreUnavailable as error:
                log.warning("job waiting for the storage", error=str(error), retry_s=self._retry_s)
                if self._stopping:
                    raise Stopping from error
                await asyncio.sleep(self._retry_s)
            else:
                return True
        return False

    async def _fail(self, job: Job, error: Exception) -> ServerError:
        """Fail a job and return its error for clients.

        An unexpected error is replaced by GenerationFailed, which names only its type.
        """
        if not isinstance(error, ServerError):
            log.error("generation failed", job_id=job.job_id, exc_info=error)
            error = GenerationFailed(f"Generation failed: {type(error).__name__}")
        elif error.code == ServerError.code:
            error = GenerationFailed(str(error))
        cause = str(error)
        log.warning("job failed", job_id=job.job_id, cause=cause)
        await self._record_end(job.job_id, lambda: self._store.fail(job.job_id, cause))
        return error.with_traceback(None)  # its frames hold the audio, and `RunningJob` holds the error

    async def _requeue(self, job: Job) -> None:
        """Set a job back to pending; it runs again after `retry_s`, or after the next start."""
        self._backing_off = True
        await self._record_end(job.job_id, lambda: self._store.requeue(job.job_id))

    async def _record_end(self, job_id: str, write: Callable[[], Awaitable[object]]) -> None:
        """Store a job's status by `write`, with retries. Logs errors instead of raising them.

        If the status is not stored, the job stays `processing`, and the next start handles it as interrupted.
        """
        try:
            await self._retry_write(write)
        except Stopping:
            return
        except Exception as error:  # no caller can handle it
            log.error("job status not stored", job_id=job_id, exc_info=error)

    async def _retry_write(self, write: Callable[[], Awaitable[T]]) -> T:
        """Retry a database write until it succeeds, so that finished work is not generated twice.

        Raises Stopping if the database is unavailable while the server is stopping.
        """
        while True:
            try:
                return await write()
            except StorageUnavailable as error:
                log.warning("job waiting for the database", error=str(error), retry_s=self._retry_s)
                if self._stopping:
                    raise Stopping from error
                await asyncio.sleep(self._retry_s)

    async def _save_progress(self) -> None:
        """Write the progress of running jobs to the database periodically; drop jobs that are lost."""
        while True:
            await asyncio.sleep(self._progress_interval_s)
            if self._progress:
                try:
                    for job_id in await self._store.save_progress(dict(self._progress)):
                        self.drop(job_id)
                except StorageUnavailable as error:
                    log.warning("progress not stored", error=str(error))
                except Exception as error:  # the next write may succeed
                    log.error("progress not stored", exc_info=error)
