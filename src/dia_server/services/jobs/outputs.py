"""Results of jobs, written atomically: in the folder `audio_outputs/`, or in the object storage.

If the folder's disk is not mounted, the mount point is an empty folder, in which every result seems to be
missing. A marker file tells the real folder from such a mount point. The server creates the marker at its
start if the database lists no results, or if the oldest listed result is in the folder. If the folder has no
marker, `files` raises StorageUnavailable, so that no job fails because its result seems to be missing. The
object storage has such a marker too, because DIA_STORAGE may name the place of another server.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from dia_server.audio.encode import MEDIA_TYPES
from dia_server.errors import StorageUnavailable
from dia_server.services.durable_files import TEMPORARY_FILES, read_chunks, remove_old, write_file
from dia_server.services.object_store import ObjectStore

log = structlog.get_logger()

NAME = re.compile(rf"[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}\.(?:{'|'.join(MEDIA_TYPES)})")
"""Names of result files; any other file is left alone."""
MARKER = ".dia-server"
PREFIX = "outputs"
"""Folder of the results in the object storage."""


class Outputs(Protocol):
    """Reads and writes results. Methods raise StorageUnavailable."""

    async def write(self, name: str, content: bytes) -> None: ...

    async def open(self, name: str) -> tuple[int, AsyncIterator[bytes]]:
        """Return the size of a file in bytes, and an iterator over its content; raises FileNotFoundError.

        Exhaust or close the iterator. The file may be removed meanwhile.
        """

    async def remove(self, name: str) -> bool:
        """Remove a file, if it exists; return False if that failed. Raises nothing."""

    async def exists(self, name: str) -> bool: ...

    async def files(self) -> Mapping[str, datetime]:
        """Map the names of all complete results to the times at which they were written.

        Raises StorageUnavailable also if there is no marker.
        """

    async def prepare(self, *, oldest: str | None) -> None:
        """Create the marker, and remove what a crash left half-written.

        Call it at the start, before any `write`. `oldest` is the file name of the oldest result that the
        database lists, None if it lists none. The marker is created if it is None or that file exists.
        """


class OutputsFolder:
    """Every disk access runs in a thread."""

    def __init__(self, folder: Path, *, grace_s: float = 0.0) -> None:
        """Temporary files younger than `grace_s` seconds may be another server's."""
        self._folder = folder
        self._grace_s = grace_s
        self._may_mark = False

    async def write(self, name: str, content: bytes) -> None:
        """Create or replace a file.

        A cancelled call raises only after the thread has ended, so that no file appears later.
        """
        writing = asyncio.ensure_future(asyncio.to_thread(self._write, name, content))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise
        except OSError as error:
            raise StorageUnavailable(
                f"The audio could not be saved in {self._folder.name}/: {error.strerror}"
            ) from error

    async def open(self, name: str) -> tuple[int, AsyncIterator[bytes]]:
        try:
            file = await asyncio.to_thread((self._folder / name).open, "rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageUnavailable(f"The audio could not be read: {error.strerror}") from error
        return os.fstat(file.fileno()).st_size, read_chunks(file)

    async def remove(self, name: str) -> bool:
        try:
            await asyncio.to_thread((self._folder / name).unlink, missing_ok=True)
        except OSError:  # the file is in use (Windows), or the folder is read-only
            return False
        return True

    async def exists(self, name: str) -> bool:
        try:
            return await asyncio.to_thread((self._folder / name).is_file)
        except OSError as error:
            raise self._unreadable(error) from error

    async def files(self) -> Mapping[str, datetime]:
        try:
            return await asyncio.to_thread(self._files)
        except OSError as error:
            raise self._unreadable(error) from error

    async def prepare(self, *, oldest: str | None) -> None:
        """If the folder cannot be created, raises nothing: each `write` tries again."""
        await asyncio.to_thread(self._prepare, oldest)

    def _unreadable(self, error: OSError) -> StorageUnavailable:
        return StorageUnavailable(f"The folder {self._folder.name}/ cannot be read: {error.strerror}")

    def _write(self, name: str, content: bytes) -> None:
        self._create_folder()
        write_file(self._folder, name, content)

    def _files(self) -> dict[str, datetime]:
        with os.scandir(self._folder) as found:
            entries = {entry.name: entry for entry in found}
        if MARKER not in entries:
            raise StorageUnavailable(
                f"The folder {self._folder.name}/ is not the one that results were written to; is its disk "
                f"mounted? If it is the right folder, create an empty file {MARKER} in it"
            )
        files = {}
        for name, entry in entries.items():
            if NAME.fullmatch(name):
                with suppress(FileNotFoundError):
                    files[name] = datetime.fromtimestamp(entry.stat().st_mtime, UTC)
        return files

    def _prepare(self, oldest: str | None) -> None:
        with suppress(OSError):
            self._may_mark = oldest is None or (self._folder / oldest).exists()
            self._create_folder()
            remove_old(self._folder.glob(TEMPORARY_FILES), self._grace_s)

    def _create_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._may_mark:
            (self._folder / MARKER).touch()


class StoredOutputs:
    """Results in the object storage; the first one that is written for a job stays."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def write(self, name: str, content: bytes) -> None:
        await self._store.create(_path(name), content)

    async def open(self, name: str) -> tuple[int, AsyncIterator[bytes]]:
        return await self._store.open(_path(name))

    async def remove(self, name: str) -> bool:
        try:
            await self._store.remove(_path(name))
        except StorageUnavailable:
            return False
        return True

    async def exists(self, name: str) -> bool:
        return await self._store.status(_path(name)) is not None

    async def files(self) -> Mapping[str, datetime]:
        found = await self._store.list(PREFIX)
        return {name: modified for name, modified in found.items() if NAME.fullmatch(name)}

    async def prepare(self, *, oldest: str | None) -> None:
        """If the storage is away, raises nothing."""
        try:
            if oldest is None or await self.exists(oldest):
                await self._store.mark()
            await self._store.remove_leftovers()
        except StorageUnavailable as error:
            log.error("storage not prepared", error=str(error))


def _path(name: str) -> str:
    return f"{PREFIX}/{name}"
