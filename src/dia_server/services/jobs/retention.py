"""Retention: deletes expired jobs and results, then reconciles the outputs folder with the jobs table."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from dia_server.db.models import now
from dia_server.errors import StorageUnavailable
from dia_server.services.config import Config, ConfigService
from dia_server.services.durable_files import GRACE_S
from dia_server.services.jobs.outputs import Outputs
from dia_server.services.jobs.store import JobStore
from dia_server.services.peers import Leadership

log = structlog.get_logger()

Cleaning = Callable[[], Awaitable[None]]

INTERVAL_S = 3600.0
"""Seconds between sweeps."""
BATCH = 1000
"""Maximum jobs read or deleted per transaction, so that other writers are not delayed."""


class Retention:
    """Sweeps at the start, hourly, and when `output_retention_hours` changes, while this server leads."""

    def __init__(
        self,
        store: JobStore,
        outputs: Outputs,
        config: ConfigService,
        leadership: Leadership,
        *,
        cleanings: Sequence[Cleaning] = (),
        local_cleanings: Sequence[Cleaning] = (),
        interval_s: float = INTERVAL_S,
        batch: int = BATCH,
    ) -> None:
        """`cleanings` remove other files without a row, also while servers write some.

        `local_cleanings` remove files of this server only; it need not lead.
        """
        self._store = store
        self._outputs = outputs
        self._config = config
        self._leadership = leadership
        self._cleanings = cleanings
        self._local_cleanings = local_cleanings
        self._interval_s = interval_s
        self._batch = batch
        self._hours: int | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._config.subscribe(self._on_change)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def sweep(self) -> None:
        """Delete expired jobs, and files that no row needs; fail jobs whose result is missing.

        Raises StorageUnavailable. The next sweep then continues; until then, the files of some expired jobs
        may be deleted already.
        """
        if hours := self._config.current.output_retention_hours:
            await self._expire(hours)
        await self._reconcile()
        for clean in self._cleanings:
            await clean()

    def wake(self) -> None:
        """Sweep now."""
        self._changed.set()

    def _on_change(self, config: Config) -> None:
        if config.output_retention_hours != self._hours:
            self._hours = config.output_retention_hours
            self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                for clean in self._local_cleanings:
                    await clean()
                if self._leadership.leads:
                    await self.sweep()
            except StorageUnavailable as error:
                log.warning("retention postponed", error=str(error), retry_s=self._interval_s)
            except Exception as error:  # the next sweep may succeed
                log.error("retention failed", exc_info=error)
            with suppress(TimeoutError):
                # not `wait_for`, which may lose a cancellation in Python 3.11
                async with asyncio.timeout(self._interval_s):
                    await self._changed.wait()

    async def _expire(self, hours: int) -> None:
        """Delete jobs that finished more than `hours` hours ago.

        A file that is being downloaded can be read to its end; on Windows it cannot be removed before that,
        and its job is kept for a later sweep. The files are deleted before the rows: on a full disk, SQLite
        needs the freed space.
        """
        moment = now() - timedelta(hours=hours)
        while old := await self._store.finished_before(moment, self._batch):
            gone = [job for job, file in old.items() if file is None or await self._outputs.remove(file)]
            if not gone:
                return
            await self._store.delete(gone)
            log.info("retention", deleted=len(gone))

    async def _reconcile(self) -> None:
        """Remove files without a job, and fail completed jobs without a file.

        A job's row names its file before the file is written, and files are listed before rows. So a listed
        file without a row is an orphan. The exception is a `Recorder`, which writes the file first: files
        younger than GRACE_S are kept. Rows that are committed while the pages are read may be missed (see
        `files_after`), but their files are written after the files were listed.

        Files last written before the oldest job was accepted are kept too, and all files if there are no
        jobs: they may belong to a database that will be restored.
        """
        files = await self._outputs.files()
        if (oldest := await self._store.oldest()) is None:
            return
        newest = now() - timedelta(seconds=GRACE_S)
        orphans = {name for name, written in files.items() if oldest <= written < newest}
        number = 0
        while page := await self._store.files_after(number, self._batch):
            number = page[-1][0]
            for _, job_id, status, file in page:
                orphans.discard(file)
                # completed jobs only: a running job's file may not be written yet
                gone = status == "completed" and file not in files
                if gone and not await self._outputs.exists(file):
                    await self._store.mark_missing(job_id)
        for file in orphans:
            await self._outputs.remove(file)
