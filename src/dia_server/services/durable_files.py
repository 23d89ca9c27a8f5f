"""File changes that survive a power failure and can be committed together with a database row."""

import errno
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

UNSUPPORTED = {errno.EINVAL, errno.EBADF}
"""errno values of file systems (some network mounts) that cannot fsync a directory."""
READ_SIZE = 32 * 1024
"""Bytes per read of a file sent to a client; Granian buffers up to eight reads for a client that stalls."""
TEMPORARY_FILES = ".*.tmp"
"""Glob pattern of temporary files; a crash during a change leaves some behind."""


class FileChange:
    """Writes and removes files in one folder: `stage`, `apply`, then `cleanup`; or `rollback` to undo it.

    At every moment, each file has its complete old or new content. All methods block; all but `cleanup`
    raise OSError.
    """

    def __init__(self, folder: Path, files: Mapping[str, bytes | None]) -> None:
        """`files` maps names to their new content; None removes the file."""
        self._folder = folder
        self._files = files
        self._staged: dict[str, Path] = {}
        self._former: dict[str, Path | None] = {}
        """Backups, by name, of the files changed so far; None for a name that had no file."""

    def stage(self) -> None:
        """Write the new content to temporary files and fsync them: slow, and fails if the disk is full."""
        for name, content in self._files.items():
            if content is not None:
                self._staged[name] = path = self._temporary()
                with path.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())

    def apply(self) -> None:
        """Back up each file, then replace it by its staged content or remove it; fsync the folder."""
        for name in self._files:
            self._former[name] = self._keep(self._folder / name)
            if name in self._staged:
                self._staged[name].replace(self._folder / name)
            else:
                (self._folder / name).unlink(missing_ok=True)
        if self._files:
            sync_folder(self._folder)

    def rollback(self) -> None:
        """Restore old files and remove new ones, after `apply` or after a failure of `stage` or `apply`."""
        for name, former in self._former.items():
            if former is not None:
                former.replace(self._folder / name)
            else:
                (self._folder / name).unlink(missing_ok=True)
        self.cleanup()

    def cleanup(self) -> None:
        """Remove backups and temporary files."""
        for path in [*self._staged.values(), *self._former.values()]:
            if path is not None:
                with suppress(OSError):  # the next start removes what is left
                    path.unlink(missing_ok=True)

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
