"""The worker: runs jobs in the engine's batch, and sees each to its end in the folder and the database.

A job's steps, and what a server that is killed between them finds when it starts again:

    claim       pending -> processing           made again, from the same row
    generate                                    made again
    record_result   what the result is              made again
    write       the file, whole or not at all   its file is there: only `complete` is missing
    complete    processing -> completed         nothing to do

A job whose attempt was cut short may have caused that: it runs alone the next time, so that jobs beside it
are cut short once, and is failed after two crashes that were noticed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from dia_server.engine.pool import AnyEngine
from dia_server.engine.workers import WorkerDied
from dia_server.errors import GenerationFailed, ModelNotLoaded, Overloaded, ServerError, StorageUnavailable
from dia_server.services.jobs.outputs import Outputs
from dia_server.services.jobs.store import Job, JobStore, file_name
from dia_server.services.speech.service import Listener, Speech, SpeechService

log = structlog.get_logger()

T = TypeVar("T")

RETRY_S = 0.5
"""Pause before what can't be done now is tried again: the model is loading, the database is locked."""
PROGRESS_INTERVAL_S = 5.0


class Stopping(Exception):
    """The server ends; what is not done is done by the next."""


class JobWorker:
    """`start` and `stop` with the server; `wake` when there may be a pending job."""

    def __init__(self, engine: AnyEngine, speech: SpeechService, store: JobStore, outputs: Outputs) -> None:
        self._engine = engine
        self._speech = speech
        self._store = store
        self._outputs = outputs
        self._wake = asyncio.Event()
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []
        self._running: dict[str, asyncio.Task[ServerError | None]] = {}
        self._generations: dict[str, asyncio.Task[Speech]] = {}
        """The part of a running job that may be cancelled."""
        self._queued: set[str] = set()
        """Running jobs that came from the queue."""
        self._alone: str | None = None
        """The one of them beside which no other may run."""
        self._progress: dict[str, float] = {}

    async def start(self, crash: str | None = None) -> None:
        """Take up what an earlier server left, then run pending jobs as they come.

        `crash` is how that server crashed, where that is known.
        """
        for job_id, file in (await self._store.interrupted()).items():
            if file is not None and await self._result_exists(file):
                await self._store.complete(job_id)
        await self._store.requeue_interrupted(crash)
        self._loops = [asyncio.create_task(self._run_queue()), asyncio.create_task(self._save_progress())]

    def pause(self) -> None:
        """Take no more jobs from the queue; what runs goes on."""
        for loop in self._loops:
            loop.cancel()

    async def stop(self, finish_s: float = 0.0) -> None:
        """Give what runs `finish_s` seconds, and leave to the next server what is not made by then.

        Returns when nothing is half-way.
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
        """How much of a job is made, 0 to 1; None where it doesn't run."""
        return self._progress.get(job_id)

    def begin(
        self,
        job: Job,
        listener: Listener | None = None,
        *,
        client: str = "",
        live: bool = False,
        background: bool = False,
    ) -> asyncio.Task[ServerError | None]:
        """Run a job that is `processing`; the task ends with it, raises nothing, and returns what failed."""

        async def on_progress(audio: bytes, progress: float) -> None:
            self._progress[job.job_id] = progress
            if listener is not None:
                await listener(audio, progress)

        assert job.request is not None
        assert job.voice is not None
        generation = asyncio.create_task(
            self._speech.make(
                job.request, job.voice, on_progress, client=client, live=live, background=background
            )
        )
        task = asyncio.create_task(self._run(job, generation, background))
        self._generations[job.job_id], self._running[job.job_id] = generation, task
        self._progress[job.job_id] = 0.0
        if background:
            self._queued.add(job.job_id)
        task.add_done_callback(lambda _: self._forget(job.job_id))
        return task

    async def cancel(self, job_id: str) -> None:
        """Stop a job; nothing of it is left then."""
        if generation := self._generations.get(job_id):
            generation.cancel()
        if running := self._running.get(job_id):
            await asyncio.wait([running])

    async def abandon(self, job_id: str) -> None:
        """Stop a job that nobody wants any more, and only then see to it that its row says so."""
        await self.cancel(job_id)
        await self._record_end(job_id, lambda: self._store.cancel(job_id))

    async def _result_exists(self, file: str) -> bool:
        try:
            return await self._outputs.exists(file)
        except StorageUnavailable as error:
            log.warning("a result can't be looked for and is made again", file=file, error=str(error))
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
            try:
                await self._start_pending()
                if self._engine.ready:
                    await self._wake.wait()
                    continue
            except StorageUnavailable as error:
                log.warning("jobs wait for the database", error=str(error))
            except Exception as error:  # whatever it was, other jobs are still to be made
                log.error("jobs not taken up", exc_info=error)
            await asyncio.sleep(RETRY_S)

    async def _start_pending(self) -> None:
        """Run pending jobs, as many as the engine has slots: it keeps some of those to itself."""
        while self._engine.ready and (free := self._engine.slots - len(self._queued)) > 0:
            if self._alone or not (jobs := await self._store.claim(free, idle=not self._queued)):
                return
            for job in jobs:
                self._alone = job.job_id if job.alone else None
                self.begin(job, background=True)

    async def _run(self, job: Job, generation: asyncio.Task[Speech], background: bool) -> ServerError | None:
        try:
            speech = await generation
        except asyncio.CancelledError:
            if self._stopping:
                await self._requeue(job)
            return None
        except Exception as error:  # noqa: BLE001 - it is this job's, and the others go on
            if background and isinstance(error, ModelNotLoaded | Overloaded):
                await self._requeue(job)
                return None
            if background and isinstance(error, WorkerDied):
                cause = str(error)
                await self._record_end(job.job_id, lambda: self._store.record_crash(job.job_id, cause))
                return None
            return await self._fail(job, error)
        finally:
            del self._generations[job.job_id]
        return await self._finish(job, speech)

    async def _finish(self, job: Job, speech: Speech) -> ServerError | None:
        assert job.request is not None
        file = file_name(job.job_id, job.request)
        try:
            await self._retry_write(lambda: self._store.record_result(job.job_id, file, speech.usage))
            await self._outputs.write(file, speech.audio)
            if not await self._retry_write(lambda: self._store.complete(job.job_id)):
                await self._outputs.remove(file)  # cancelled at the last moment
        except Stopping:
            return None
        except Exception as error:  # noqa: BLE001 - it is this job's, and the others go on
            return await self._fail(job, error)
        return None

    async def _fail(self, job: Job, error: Exception) -> ServerError:
        """Returns the failure as clients are told it."""
        if not isinstance(error, ServerError):
            log.error("generation failed", job_id=job.job_id, exc_info=error)
            error = GenerationFailed(f"Generation failed: {type(error).__name__}")
        elif error.code == ServerError.code:
            error = GenerationFailed(str(error))
        cause = str(error)
        log.warning("job failed", job_id=job.job_id, cause=cause)
        await self._record_end(job.job_id, lambda: self._store.fail(job.job_id, cause))
        return error

    async def _requeue(self, job: Job) -> None:
        """Let a job wait for an engine that can take it, or for the next server."""
        await self._record_end(job.job_id, lambda: self._store.requeue(job.job_id))
        asyncio.get_running_loop().call_later(RETRY_S, self._wake.set)

    async def _record_end(self, job_id: str, write: Callable[[], Awaitable[object]]) -> None:
        """Note how a job has ended; where that can't be, the next server finds it as one that was running."""
        try:
            await self._retry_write(write)
        except Stopping:
            return
        except Exception as error:  # there is nobody left to tell
            log.error("a job's end was not noted", job_id=job_id, exc_info=error)

    async def _retry_write(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write to the database, however long it is locked or full: what was made is not made twice."""
        while True:
            try:
                return await write()
            except StorageUnavailable as error:
                log.warning("a job waits for the database", error=str(error))
                if self._stopping:
                    raise Stopping from error
                await asyncio.sleep(RETRY_S)

    async def _save_progress(self) -> None:
        """Keep the progress of long jobs in the database too, for whoever reads it there."""
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            if self._progress:
                try:
                    await self._store.save_progress(dict(self._progress))
                except StorageUnavailable as error:
                    log.warning("progress not kept", error=str(error))
                except Exception as error:  # the next time may do
                    log.error("progress not kept", exc_info=error)
