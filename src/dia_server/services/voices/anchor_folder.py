"""The files of anchors or of candidates, which are named after their digest or id."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from dia_server.services.durable_files import TEMPORARY_FILES, FileChange, remove_old
from dia_server.services.file_change import Change, FolderChange
from dia_server.services.object_folder import Names
from dia_server.services.voices.anchor_file import SUFFIX


class AnchorFiles(Protocol):
    """A folder, or a folder of the object storage."""

    def change(self) -> Change: ...

    async def read(self, name: str) -> bytes:
        """Return the content of a file, which the caller verifies; raises OSError or StorageUnavailable."""

    async def remove(self, names: Iterable[str]) -> None:
        """Remove files that no row names any more, at once or by the next `clean`; raises nothing."""

    async def clean(self, names: Names) -> None:
        """Remove files that none of `names` names, and leftovers; raises StorageUnavailable."""


class AnchorFolder:
    def __init__(self, path: Path, *, grace_s: float = 0.0) -> None:
        """Files younger than `grace_s` seconds are kept: they may be another server's."""
        self._path = path
        self._grace_s = grace_s

    def change(self) -> FolderChange:
        return FolderChange(FileChange(self._path))

    async def read(self, name: str) -> bytes:
        return await asyncio.to_thread((self._path / name).read_bytes)

    async def remove(self, names: Iterable[str]) -> None:
        def remove() -> None:
            for name in names:
                with suppress(OSError):  # `clean` removes it
                    (self._path / name).unlink(missing_ok=True)

        if not self._grace_s:  # else another server may be about to name the same file
            await asyncio.to_thread(remove)

    async def clean(self, names: Names) -> None:
        """Create the folder, if it is missing, and clean it."""

        def found() -> list[Path]:
            self._path.mkdir(parents=True, exist_ok=True)
            return [*self._path.glob(TEMPORARY_FILES), *self._path.glob(f"*{SUFFIX}")]

        with suppress(OSError):  # the server can still read a folder that it cannot write
            files = await asyncio.to_thread(found)
            known = await names()
            gone = [file for file in files if file.name not in known]
            await asyncio.to_thread(remove_old, gone, self._grace_s)
