"""The folder of results: files that are there whole or not at all.

A disk that is not mounted leaves an empty folder in its place, in which all results seem to be gone. So the
folder bears a mark, made when there were no results yet or the oldest was there; without it nobody can tell
what is gone.
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

from dia_server.errors import StorageUnavailable
from dia_server.services.durable_files import READ_SIZE, sync_folder

NAME = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.(?:wav|mp3|opus|aac|flac|pcm)")
"""Of our files; whatever else is in the folder is somebody else's and left alone."""
MARKER = ".dia-server"
PART = ".part"
"""Ends the name of a file that is not whole yet."""


class Outputs:
    """Every method that touches the disk does so in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._may_mark = False
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Keep retention away from `name` while it is written or read."""
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
        """Put a file into the folder, over one of the same name; raises StorageUnavailable.

        Cancelling waits until the thread is through: nothing appears in the folder afterwards.
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
        """The size of a file and its bytes; raises FileNotFoundError or StorageUnavailable.

        The iterator must be run or closed: the file is held, and open, until then.
        """
        try:
            file = await asyncio.to_thread((self._folder / name).open, "rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageUnavailable(f"The audio could not be read: {error.strerror}") from error
        return os.fstat(file.fileno()).st_size, self._read(name, file)

    async def remove(self, name: str, *, unless_before: datetime | None = None) -> None:
        """Remove a file, if it is there, and was not last written before a certain time.

        One that can't be removed now is found again by retention.
        """
        await asyncio.to_thread(self._remove, name, unless_before)

    async def exists(self, name: str) -> bool:
        """Raises StorageUnavailable where nobody can tell."""
        try:
            return await asyncio.to_thread((self._folder / name).is_file)
        except OSError as error:
            raise self._unreadable(error) from error

    async def names(self) -> set[str]:
        """Of all whole files of ours; raises StorageUnavailable where nobody can tell."""
        try:
            return await asyncio.to_thread(self._names)
        except OSError as error:
            raise self._unreadable(error) from error

    async def prepare(self, *, oldest: str | None) -> None:
        """Make the folder, and remove from it what was being written when an earlier server ended.

        Only at start, before any `write`. `oldest` is the oldest result, None where there are none yet: if it
        is there this is their folder. One that can't be made is the matter of each `write`.
        """
        await asyncio.to_thread(self._prepare, oldest)

    async def _read(self, name: str, file: IO[bytes]) -> AsyncIterator[bytes]:
        with self.hold(name), file:
            while chunk := await asyncio.to_thread(file.read, READ_SIZE):
                yield chunk

    def _unreadable(self, error: OSError) -> StorageUnavailable:
        return StorageUnavailable(f"The folder {self._folder.name}/ can't be read: {error.strerror}")

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
        with suppress(OSError):  # in use (Windows), or the folder is read-only
            if unless_before is None or file.stat().st_mtime >= unless_before.timestamp():
                file.unlink(missing_ok=True)

    def _names(self) -> set[str]:
        names = {entry.name for entry in os.scandir(self._folder)}
        if MARKER not in names:
            raise StorageUnavailable(
                f"The folder {self._folder.name}/ is not the one that results were written to: is a disk not "
                f"mounted? If it is the one, make an empty file {MARKER} in it"
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
