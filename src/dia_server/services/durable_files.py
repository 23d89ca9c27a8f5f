"""File changes that survive a power failure and can be committed together with a database row."""

import asyncio
import errno
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

import msgspec

UNSUPPORTED = {errno.EINVAL, errno.EBADF}
"""errno values of file systems (some network mounts) that cannot fsync a directory."""
READ_SIZE = 32 * 1024
"""Bytes per read of a file sent to a client; Granian buffers up to eight reads for a client that stalls."""
GRACE_S = 3600.0
"""Seconds for which a file without a database row is kept: a server may be about to commit the row."""
JOURNAL = ".change.journal"
"""Name of the journal of a RecoverableChange."""
TEMPORARY_FILES = ".*.tmp"
"""Glob pattern of temporary files; a crash during a change leaves some behind."""


class FileChange:
    """Writes and removes files in one folder: `add` each, `apply`, then `cleanup`; or `rollback` to undo it.

    At every moment, each file has its complete old or new content. All methods block; all but `cleanup`
    raise OSError.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staged: dict[str, Path | None] = {}
        """Temporary files with the new content, by name; None for a file to remove."""
        self._former: dict[str, Path | None] = {}
        """Backups, by name, of the files changed so far; None for a name that had no file."""
        self.committed: dict[str, str] = {}
        """Values that the database has once it has committed, by key; a journal keeps them for the caller."""

    def add(self, name: str, content: bytes | None) -> None:
        """Write the new content of a file to a temporary file and fsync it; None removes the file.

        It is slow, and fails if the disk is full.
        """
        self._staged[name] = path = None if content is None else self._temporary()
        if path is not None and content is not None:
            _write(path, content)

    def apply(self) -> None:
        """Back up each file, then replace it by its staged content or remove it; fsync the folder."""
        for name, staged in self._staged.items():
            self._former[name] = self._keep(self._folder / name)
            self._replace(name, staged)
        if self._staged:
            sync_folder(self._folder)

    def rollback(self) -> None:
        """Restore old files and remove new ones, after `apply` or after a failure of `add` or `apply`."""
        for name, former in self._former.items():
            _restore(self._folder / name, former)
        self.cleanup()

    def cleanup(self) -> None:
        """Remove backups and temporary files."""
        for path in [*self._staged.values(), *self._former.values()]:
            if path is not None:
                with suppress(OSError):  # the next start removes what is left
                    path.unlink(missing_ok=True)

    def _replace(self, name: str, staged: Path | None) -> None:
        if staged is None:
            (self._folder / name).unlink(missing_ok=True)
        else:
            staged.replace(self._folder / name)

    def _temporary(self) -> Path:
        return self._folder / f".{uuid4().hex}.tmp"

    def _keep(self, path: Path) -> Path | None:
        """Back up `path` by hard link, or copy if links fail. Returns the backup, None if no file exists."""
        kept = self._temporary()
        try:
            os.link(path, kept, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError:
            shutil.copy2(path, kept, follow_symlinks=False)
        return kept


class RecoverableChange(FileChange):
    """A FileChange that the next start can undo if the server is killed before the database commits.

    `apply` writes a journal first; `cleanup` and `rollback` remove it. A folder has one journal: the caller
    lets no other such change begin before the journal is removed, or undone if its server was killed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._has_journal = False

    def apply(self) -> None:
        if not self._staged:
            return
        for name in self._staged:
            self._former[name] = self._keep(self._folder / name)
        backups = {name: None if former is None else former.name for name, former in self._former.items()}
        temporary = self._temporary()
        _write(temporary, msgspec.json.encode(Journal(self.committed, backups)))
        self._has_journal = True
        temporary.replace(self._folder / JOURNAL)
        sync_folder(self._folder)
        for name, staged in self._staged.items():
            self._replace(name, staged)
        sync_folder(self._folder)

    def cleanup(self) -> None:
        """Remove the journal, then backups and temporary files; raises OSError if the journal stays."""
        if self._has_journal:  # else it would be another server's
            remove_journal(self._folder)
        super().cleanup()


class Journal(msgspec.Struct):
    """What a RecoverableChange is about to do."""

    committed: dict[str, str]
    backups: dict[str, str | None]
    """Names of the backups by the names of the files; None for a file that is new."""


def read_journal(folder: Path) -> Journal | None:
    """Return the journal of a change that was interrupted, None if there is none; raises OSError."""
    try:
        return msgspec.json.decode((folder / JOURNAL).read_bytes(), type=Journal)
    except (FileNotFoundError, NotADirectoryError):
        return None


def undo(folder: Path, journal: Journal) -> None:
    """Undo an interrupted change, even if an earlier `undo` was interrupted; raises OSError."""
    for name, backup in journal.backups.items():
        if backup is None or (folder / backup).exists():
            _restore(folder / name, None if backup is None else folder / backup)
    remove_journal(folder)


def remove_journal(folder: Path) -> None:
    """Remove the journal, if there is one, once the other changes in the folder are on the disk."""
    if (folder / JOURNAL).exists():
        sync_folder(folder)
        (folder / JOURNAL).unlink()
        sync_folder(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _restore(path: Path, former: Path | None) -> None:
    """Replace `path` by its backup, or remove it if it had none."""
    if former is None:
        path.unlink(missing_ok=True)
    else:
        former.replace(path)
        former.unlink(missing_ok=True)  # if both are links to one file, `replace` does nothing


def write_file(folder: Path, name: str, content: bytes) -> None:
    """Create or replace a file durably, and the folder if it is missing; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    change = FileChange(folder)
    try:
        change.add(name, content)
        change.apply()
    except OSError:
        change.rollback()
        raise
    change.cleanup()


def create_file(path: Path, content: bytes) -> bool:
    """Create a file durably, and its folder if it is missing; return False if it exists. Raises OSError."""
    if not path.parent.exists():
        path.parent.mkdir(exist_ok=True)
        sync_folder(path.parent.parent)
    temporary = path.parent / f".{uuid4().hex}.tmp"
    created = True
    try:
        _write(temporary, content)
        os.link(temporary, path)
    except FileExistsError:
        created = False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return created


async def read_chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    """Yield the content of an open file, and close it; each read runs in a thread."""
    with file:
        while chunk := await asyncio.to_thread(file.read, READ_SIZE):
            yield chunk


def remove_old(files: Iterable[Path], grace_s: float) -> None:
    """Remove those of `files` that were put in place at least `grace_s` seconds ago; raises OSError."""
    for file in files:
        with suppress(FileNotFoundError):  # another server has removed it
            # ctime: a backup is a link to an older file, and has its mtime
            if not grace_s or file.stat(follow_symlinks=False).st_ctime <= time.time() - grace_s:
                file.unlink()


def sync_folder(folder: Path) -> None:
    """Fsync the directory `folder`, so that its entries survive a power failure; raises OSError.

    Does nothing on file systems that cannot fsync a directory. PermissionError is ignored: Windows cannot
    open folders (and needs no fsync), and a folder may be writable but not readable.
    """
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        finally:
            os.close(descriptor)
