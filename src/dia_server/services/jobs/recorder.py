"""What a request that was answered at once leaves behind: a count, and, if wished, its audio as a file.

It is written after the answer, which waits for neither the disk nor the database.
"""

import asyncio
from dataclasses import dataclass
from uuid import uuid4

import structlog

from dia_server.errors import StorageUnavailable
from dia_server.services.config import ConfigService
from dia_server.services.jobs.outputs import Outputs
from dia_server.services.jobs.store import JobStore, file_name
from dia_server.services.speech.service import Speech, SpeechRequest
from dia_server.services.speech.usage import Usage
from dia_server.services.voices.service import Voice

log = structlog.get_logger()

MAX_WAITING = 64 * 1024 * 1024
"""Bytes of audio that may wait for the disk, in memory; what comes then is counted, but not kept."""
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Entry:
    request: SpeechRequest
    voice: Voice
    usage: Usage | None
    audio: bytes
    """To be kept; empty where it is not."""


class Recorder:
    """`start` and `stop` with the server; what was entered before `stop` is written by then."""

    def __init__(self, store: JobStore, outputs: Outputs, config: ConfigService) -> None:
        self._store = store
        self._outputs = outputs
        self._config = config
        self._entries: asyncio.Queue[_Entry | None] = asyncio.Queue()
        self._waiting = 0
        """Bytes of audio that wait to be written, or are being."""
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._stopping = True
        self._entries.put_nowait(None)
        if self._task is not None:
            await self._task

    def record(self, request: SpeechRequest, voice: Voice, speech: Speech | None) -> None:
        """Enter a request that was answered with `speech`, or with an error; returns at once."""
        usage, audio = (speech.usage, speech.audio) if speech else (None, b"")
        if not self._config.current.save_outputs:
            audio = b""
        elif self._waiting and self._waiting + len(audio) > MAX_WAITING:
            log.warning("output not kept: the disk is too slow", waiting=self._waiting)
            audio = b""
        self._waiting += len(audio)
        self._entries.put_nowait(_Entry(request, voice, usage, audio))

    async def _run(self) -> None:
        while (entry := await self._entries.get()) is not None:
            try:
                if not await self._save_output(entry):
                    await self._count(entry.usage)
            except Exception as error:  # it is this entry's, and the others are written
                log.error("a request was not recorded", exc_info=error)
            finally:
                self._waiting -= len(entry.audio)

    async def _save_output(self, entry: _Entry) -> bool:
        """Returns False where there is no audio to keep, or it could not be kept; it is not tried again."""
        if entry.usage is None or not entry.audio:
            return False
        job_id = str(uuid4())
        file = file_name(job_id, entry.request)
        with self._outputs.hold(file):  # the file is there before its row is
            try:
                await self._outputs.write(file, entry.audio)
                await self._store.add_completed(job_id, entry.request, entry.voice, file, entry.usage)
            except StorageUnavailable as error:
                log.warning("output not kept", error=str(error))
                await self._outputs.remove(file)
                return False
        return True

    async def _count(self, usage: Usage | None) -> None:
        """Count a request, however long the database is locked or full; not beyond the server's end."""
        while True:
            try:
                return await self._store.count(usage)
            except StorageUnavailable as error:
                log.warning("a request waits to be counted", error=str(error))
                if self._stopping:
                    return
            await asyncio.sleep(RETRY_S)
