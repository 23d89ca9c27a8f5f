"""Checks that the SQLite file is still the one opened at the start, and that it can still grow.

Connections to a deleted or replaced file keep working, but what they write is lost.
"""

import os
import shutil
from pathlib import Path

from dia_server.errors import StorageUnavailable
from dia_server.units import MIB

RETRY_S = 5
"""Seconds in the Retry-After header of responses while the database is unavailable."""
MIN_FREE_BYTES = MIB
"""Minimum free bytes on the disk for the database to count as writable."""


class DatabaseFile:
    """Checks that a database file was neither deleted nor replaced since `open`, and that it can be written.

    Before `open` and after `close`, `require_same` checks nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        """Descriptor of the file, kept open so that no new file gets its inode number; None if not open."""

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def open(self) -> None:
        """Remember the file that is at `path` now."""
        self._descriptor = os.open(self.path, os.O_RDONLY)

    def close(self) -> None:
        """Forget the file. Close all connections first: this drops all locks of the process on the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def require_same(self) -> None:
        """Raise StorageUnavailable if the file has been deleted or replaced."""
        if self._descriptor is None:
            return
        try:
            now = self.path.stat()
        except OSError as error:
            raise self._unavailable(
                f"{self.path.name} cannot be found: {error.strerror}; put it back"
            ) from error
        if not os.path.samestat(now, os.fstat(self._descriptor)):
            raise self._unavailable(
                f"{self.path.name} was replaced while the server ran; put the old one back or restart"
            )

    def require_writable(self) -> None:
        """Raise StorageUnavailable if the file is missing, replaced, read-only, or on a full disk."""
        self.require_same()
        if not os.access(self.path, os.W_OK):
            raise self._unavailable(f"{self.path.name} is read-only")
        if shutil.disk_usage(self.path.parent).free < MIN_FREE_BYTES:
            raise self._unavailable("the disk is full")

    def _unavailable(self, cause: str) -> StorageUnavailable:
        return StorageUnavailable(f"The database cannot be used at the moment: {cause}", retry_after=RETRY_S)
