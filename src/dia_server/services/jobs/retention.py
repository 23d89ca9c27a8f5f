"""Retention: what is old goes, and afterwards the outputs folder and the table of jobs agree."""

import asyncio
from datetime import timedelta

import structlog

from dia_server.db.models import now
from dia_server.errors import StorageUnavailable
from dia_server.services.config import Config, ConfigService
from dia_server.services.jobs.outputs import Outputs
from dia_server.services.jobs.store import JobStore

log = structlog.get_logger()

INTERVAL_S = 3600.0
BATCH = 1000
"""Jobs looked at, or deleted, in one transaction: others must get their turn."""


class Retention:
    """Sweeps at start, hourly, and when the time that things are kept has changed."""

    def __init__(self, store: JobStore, outputs: Outputs, config: ConfigService) -> None:
        self._store = store
        self._outputs = outputs
        self._config = config
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
        """Raises StorageUnavailable; what was done by then is whole, the next sweep does the rest."""
        if hours := self._config.current.output_retention_hours:
            await self._expire(hours)
        await self._reconcile()

    def _on_change(self, config: Config) -> None:
        if config.output_retention_hours != self._hours:
            self._hours = config.output_retention_hours
            self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self.sweep()
            except StorageUnavailable as error:
                log.warning("retention waits for the next time", error=str(error))
            except Exception as error:  # the next time may do
                log.error("retention failed", exc_info=error)
            try:
                await asyncio.wait_for(self._changed.wait(), INTERVAL_S)
            except TimeoutError:
                continue

    async def _expire(self, hours: int) -> None:
        """Delete the files of old jobs, then the rows, for which SQLite needs the space on a full disk."""
        moment = now() - timedelta(hours=hours)
        while old := await self._store.finished_before(moment, BATCH):
            free = {job_id: file for job_id, file in old.items() if file not in self._outputs.held}
            if not free:  # all are being downloaded
                return
            for file in filter(None, free.values()):
                await self._outputs.remove(file)
            await self._store.delete(list(free))
            log.info("retention", deleted=len(free))

    async def _reconcile(self) -> None:
        """Remove files without a job, and fail completed jobs without a file.

        Files are listed before jobs are: a job notes its file before that is written, so a file on the list
        without a job has lost it. What is held may have its row a moment later.

        What is older than the oldest job may be another database's, that was lost or is to be put back.
        """
        files = await self._outputs.names()
        if (oldest := await self._store.oldest()) is None:
            return
        orphans, number = files - self._outputs.held, 0
        while page := await self._store.files_after(number, BATCH):
            number = page[-1][0]
            for _, job_id, status, file in page:
                orphans.discard(file)
                # one that is still processing may get its file, and be completed, at any moment
                gone = status == "completed" and file not in files
                if gone and not await self._outputs.exists(file):
                    await self._store.mark_missing(job_id)
        for file in orphans - self._outputs.held:
            await self._outputs.remove(file, unless_before=oldest)
