"""Records synchronous requests after the response, which waits for neither the disk nor the database.

Each request is added to the totals. If `save_outputs` is on, its audio is saved as a completed job.
"""

import asyncio
from dataclasses import dataclass, replace
from uuid import uuid4

import structlog

from dia_server.errors import StorageUnavailable
from dia_server.services.config import ConfigService
from dia_server.services.jobs.outputs import Outputs
from dia_server.services.jobs.store import JobStore, file_name
from dia_server.services.speech.request import Speech
from dia_server.services.speech.usage import Usage
from dia_server.units import MIB

log = structlog.get_logger()

MAX_WAITING = 64 * MIB
"""Maximum bytes of audio waiting in memory for the disk. Audio that would exceed it is not saved, unless no
other audio waits; its request is only counted."""
RETRY_S = 1.0
"""Seconds between attempts to update the totals."""


@dataclass(frozen=True, slots=True)
class _Entry:
    speech: Speech | None
    """Result of the request, None if it failed. Its `audio` is empty if the request is only counted."""

    @property
    def size(self) -> int:
        """Size of the audio to save, in bytes."""
        return len(self.speech.audio) if self.speech else 0


class Recorder:
    """Writes records in the background: `start` and `stop` it with the server.

    `stop` returns when the queued records are written, or dropped because the database is unavailable.
    """

    def __init__(
        self,
        store: JobStore,
        outputs: Outputs,
        config: ConfigService,
        *,
        max_waiting: int = MAX_WAITING,
        retry_s: float = RETRY_S,
    ) -> None:
        self._store = store
        self._outputs = outputs
        self._config = config
        self._max_waiting = max_waiting
        self._retry_s = retry_s
        self._entries: asyncio.Queue[_Entry | None] = asyncio.Queue()
        self._waiting = 0
        """Bytes of audio that are queued or being written."""
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._stopping = True
        self._entries.put_nowait(None)
        if self._task is not None:
            await self._task

    def record(self, speech: Speech | None) -> None:
        """Queue the record of a request: its result `speech`, or None if it failed. Does not block."""
        if speech is not None and not self._may_save(len(speech.audio)):
            speech = replace(speech, audio=b"")
        entry = _Entry(speech)
        self._waiting += entry.size
        self._entries.put_nowait(entry)

    def _may_save(self, size: int) -> bool:
        if not self._config.current.save_outputs:
            return False
        if self._waiting and self._waiting + size > self._max_waiting:
            log.warning(
                "output not saved: disk too slow", waiting_bytes=self._waiting, limit=self._max_waiting
            )
            return False
        return True

    async def _run(self) -> None:
        while (entry := await self._entries.get()) is not None:
            try:
                speech = entry.speech
                if speech is None or not (speech.audio and await self._save_output(speech)):
                    await self._count(speech.usage if speech else None)
            except Exception as error:  # later requests must still be recorded
                log.error("request not recorded", exc_info=error)
            finally:
                self._waiting -= entry.size

    async def _save_output(self, speech: Speech) -> bool:
        """Save the audio, then insert a completed job for it and count the request.

        Returns False, without a retry, if the disk or the database is unavailable.
        """
        job_id = str(uuid4())
        file = file_name(job_id, speech.request)
        try:
            await self._outputs.write(file, speech.audio)
            await self._store.add_completed(job_id, speech, file)
        except StorageUnavailable as error:
            log.warning("output not saved", error=str(error))
            await self._outputs.remove(file)
            return False
        return True

    async def _count(self, usage: Usage | None) -> None:
        """Add a request to the totals; retry while the database is unavailable, until the server stops."""
        while True:
            try:
                return await self._store.count(usage)
            except StorageUnavailable as error:
                log.warning("request not counted yet", error=str(error), retry_s=self._retry_s)
                if self._stopping:
                    return
            await asyncio.sleep(self._retry_s)
