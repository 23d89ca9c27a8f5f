"""The SQLite file as it was when the server started: whether it is still there, and can still grow.

Connections go on working on a file that was deleted or replaced, and what they write is lost.
"""

import os
import shutil
from pathlib import Path

from dia_server.errors import StorageUnavailable

RETRY_S = 5
MIN_FREE_BYTES = 1024 * 1024
"""Least free space with which the database counts as able to grow."""


class DatabaseFile:
    """Before `open` and after `close` every check passes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        """Kept open, so that its inode's number is not given to another file."""

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def open(self) -> None:
        """Remember the file that is there now."""
        self._descriptor = os.open(self.path, os.O_RDONLY)

    def close(self) -> None:
        """Call it after the last connection is closed: it ends this process's locks on the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def require_same(self) -> None:
        """Raise StorageUnavailable where the path leads to no file, or to another than at the start."""
        if self._descriptor is None:
            return
        try:
            now = self.path.stat()
        except OSError as error:
            raise self._unavailable(
                f"{self.path.name} can't be found: {error.strerror}; put it back"
            ) from error
        if not os.path.samestat(now, os.fstat(self._descriptor)):
            raise self._unavailable(
                f"{self.path.name} was replaced while the server ran; put the old one back or restart"
            )

    def require_writable(self) -> None:
        """Raise StorageUnavailable where the file is gone, read-only, or on a full disk."""
        self.require_same()
        if not os.access(self.path, os.W_OK):
            raise self._unavailable(f"{self.path.name} is read-only")
        if shutil.disk_usage(self.path.parent).free < MIN_FREE_BYTES:
            raise self._unavailable("the disk is full")

    def _unavailable(self, cause: str) -> StorageUnavailable:
        return StorageUnavailable(f"The database can't be used at the moment: {cause}", retry_after=RETRY_S)
