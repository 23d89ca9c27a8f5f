"""Files that survive a power failure, and that change together with a row in the database."""

import errno
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

UNSUPPORTED = {errno.EINVAL, errno.EBADF}
"""What file systems answer that do not sync folders, some of a network among them."""
READ_SIZE = 32 * 1024
"""Bytes per read of a file that is sent; Granian holds up to eight for a client that does not read."""
TEMPORARY_FILES = ".*.tmp"
"""What a power failure in the middle of a change leaves behind."""


class FileChange:
    """`stage` does what takes time or space, `apply` renames; then `rollback` or `cleanup`.

    Every file is whole at every moment: the old one or the new. All methods block and raise OSError.
    """

    def __init__(self, folder: Path, files: Mapping[str, bytes | None]) -> None:
        """`files` maps names to their new content, None removing the file."""
        self._folder = folder
        self._files = files
        self._staged: dict[str, Path] = {}
        self._former: dict[str, Path | None] = {}
        """What had each name before; only names whose change has begun."""

    def stage(self) -> None:
        """Write the new content to the disk, under other names."""
        for name, content in self._files.items():
            if content is not None:
                self._staged[name] = path = self._temporary()
                with path.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())

    def apply(self) -> None:
        for name in self._files:
            self._former[name] = self._keep(self._folder / name)
            if name in self._staged:
                self._staged[name].replace(self._folder / name)
            else:
                (self._folder / name).unlink(missing_ok=True)
        if self._files:
            sync_folder(self._folder)

    def rollback(self) -> None:
        """Leave the folder as it was, however far the change has come."""
        for name, former in self._former.items():
            if former is not None:
                former.replace(self._folder / name)
            else:
                (self._folder / name).unlink(missing_ok=True)
        self.cleanup()

    def cleanup(self) -> None:
        for path in [*self._staged.values(), *self._former.values()]:
            if path is not None:
                with suppress(OSError):  # what stays goes at the next start
                    path.unlink(missing_ok=True)

    def _temporary(self) -> Path:
        return self._folder / f".{uuid4().hex}.tmp"

    def _keep(self, path: Path) -> Path | None:
        """Give a file a second name, or a copy where the file system cannot; None where there is none."""
        kept = self._temporary()
        try:
            os.link(path, kept, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError:
            shutil.copy2(path, kept, follow_symlinks=False)
        return kept


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; raises OSError.

    Windows does that by itself and cannot open folders; nor can who may write to one and not read it.
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
