"""The outputs folder: result files, written atomically.

If the folder's disk is not mounted, the mount point is an empty folder, in which every result seems to be
missing. A marker file tells the real folder from such a mount point. The server creates the marker at its
start if the database lists no results, or if the oldest listed result is in the folder. If the folder has no
marker, `names` raises StorageUnavailable, so that no job fails because its result seems to be missing.
"""

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from dia_server.audio.encode import MEDIA_TYPES
from dia_server.errors import StorageUnavailable
from dia_server.services.durable_files import READ_SIZE, sync_folder

NAME = re.compile(rf"[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}\.(?:{'|'.join(MEDIA_TYPES)})")
"""Names of result files; any other file in the folder is left alone."""
MARKER = ".dia-server"
PART = ".part"
"""Suffix of a file that is still being written."""


class Outputs:
    """Reads and writes results; every disk access runs in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._may_mark = False
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Protect the file `name` from retention inside the `with` block."""
        self._held[name] += 1
        try:
            yield
        finally:
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]

    @property
    def held(self) -> set[str]:
        return set(self._held)

    async def write(self, name: str, content: bytes) -> None:
        """Create or replace a file; raises StorageUnavailable.

        A cancelled call raises only after the thread has ended, so that no file appears later.
        """
        with self.hold(name):
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
        """Return the size of a file in bytes, and an iterator over its content.

        Raises FileNotFoundError or StorageUnavailable. Exhaust or close the iterator: it keeps the file open
        and, from the first read on, protects it from retention (see `hold`).
        """
        try:
            file = await asyncio.to_thread((self._folder / name).open, "rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageUnavailable(f"The audio could not be read: {error.strerror}") from error
        return os.fstat(file.fileno()).st_size, self._read(name, file)

    async def remove(self, name: str, *, unless_before: datetime | None = None) -> None:
        """Remove a file, unless it is missing or was last written before `unless_before`.

        Errors are ignored: the next retention sweep tries again.
        """
        await asyncio.to_thread(self._remove, name, unless_before)

    async def exists(self, name: str) -> bool:
        """Return whether the file exists; raises StorageUnavailable if the folder cannot be read."""
        try:
            return await asyncio.to_thread((self._folder / name).is_file)
        except OSError as error:
            raise self._unreadable(error) from error

    async def names(self) -> set[str]:
        """Return the file names of all complete results.

        Raises StorageUnavailable if the marker is missing or the folder cannot be read.
        """
        try:
            return await asyncio.to_thread(self._names)
        except OSError as error:
            raise self._unreadable(error) from error

    async def prepare(self, *, oldest: str | None) -> None:
        """Create the folder and its marker, and remove files that an earlier server left half-written.

        Call it at the start, before any `write`. `oldest` is the file name of the oldest result that the
        database lists, None if it lists none. The marker is created if `oldest` is None or that file exists.
        If the folder cannot be created, `prepare` raises nothing: each `write` tries again, and raises
        StorageUnavailable if that fails.
        """
        await asyncio.to_thread(self._prepare, oldest)

    async def _read(self, name: str, file: IO[bytes]) -> AsyncIterator[bytes]:
        with self.hold(name), file:
            while chunk := await asyncio.to_thread(file.read, READ_SIZE):
                yield chunk

    def _unreadable(self, error: OSError) -> StorageUnavailable:
        return StorageUnavailable(f"The folder {self._folder.name}/ cannot be read: {error.strerror}")

    def _write(self, name: str, content: bytes) -> None:
        self._create_folder()
        part = self._folder / (name + PART)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._folder / name)
        except OSError:
            self._remove(part.name)
            raise
        sync_folder(self._folder)

    def _remove(self, name: str, unless_before: datetime | None = None) -> None:
        file = self._folder / name
        with suppress(OSError):  # the file is in use (Windows), or the folder is read-only
            if unless_before is None or file.stat().st_mtime >= unless_before.timestamp():
                file.unlink(missing_ok=True)

    def _names(self) -> set[str]:
        names = {entry.name for entry in os.scandir(self._folder)}
        if MARKER not in names:
            raise StorageUnavailable(
                f"The folder {self._folder.name}/ is not the one that results were written to; is its disk "
                f"mounted? If it is the right folder, create an empty file {MARKER} in it"
            )
        return {name for name in names if NAME.fullmatch(name)}

    def _prepare(self, oldest: str | None) -> None:
        with suppress(OSError):
            self._may_mark = oldest is None or (self._folder / oldest).exists()
            self._create_folder()
        for part in self._folder.glob(f"*{PART}"):
            if NAME.fullmatch(part.name.removesuffix(PART)):
                self._remove(part.name)

    def _create_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._may_mark:
            (self._folder / MARKER).touch()
