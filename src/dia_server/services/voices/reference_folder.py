"""The folder of references that jobs use: `{SHA-256 of the file}.wav`. All methods block."""

import hashlib
import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from dia_server.audio import prompt
from dia_server.errors import Overloaded, PromptNotUsable
from dia_server.services.durable_files import TEMPORARY_FILES, FileChange
from dia_server.units import MIB

NAME = re.compile(r"([0-9a-f]{64})\.wav")
"""Names of the folder's files; any other file is left alone."""
MAX_FILES = 1024
MAX_BYTES = 512 * MIB
MAX_AGE_S = 24 * 3600.0
"""Seconds after its last use by a new job at which a reference that no unfinished job needs is deleted."""
RETRY_S = 30
"""Retry-After in seconds when unfinished jobs need the whole folder."""


class ReferenceFolder:
    """Keeps the references that unfinished jobs need, and as a cache the most recent others."""

    def __init__(self, path: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_files = max_files
        self._max_bytes = max_bytes

    def read(self, digest: str) -> bytes:
        """Return the WAV file with this SHA-256; raises PromptNotUsable."""
        try:
            with (self._path / f"{digest}.wav").open("rb") as file:
                stored = file.read(prompt.MAX_SIZE)
        except OSError as error:
            raise PromptNotUsable(
                f"The reference of the request cannot be read: {error.strerror}", param="ref_audio"
            ) from error
        if hashlib.sha256(stored).hexdigest() != digest:
            raise PromptNotUsable("The file of the request's reference has changed", param="ref_audio")
        return stored

    def has_room(self, size: int) -> bool:
        """Return whether one more file of `size` bytes is within the limits."""
        sizes = [status.st_size for _, status in self._files()]
        return self._fits(len(sizes) + 1, sum(sizes) + size)

    def touch(self, digest: str) -> bool:
        """Mark a reference as used now; return False if it is not stored, or is damaged."""
        try:
            self.read(digest)
            os.utime(self._path / f"{digest}.wav")
        except (OSError, PromptNotUsable):
            return False
        return True

    def write(self, digest: str, wav: bytes) -> None:
        """Store a file so that it survives a power failure; raises OSError."""
        self._path.mkdir(parents=True, exist_ok=True)
        change = FileChange(self._path, {f"{digest}.wav": wav})
        try:
            change.stage()
            change.apply()
        except OSError:
            change.rollback()
            raise
        change.cleanup()

    def make_room(self, size: int, needed: Collection[str]) -> None:
        """Delete the least recent files, except those in `needed`, until one more of `size` bytes fits.

        `needed` holds the digests that unfinished jobs use. Raises Overloaded if they leave no room.
        """
        oldest_first = sorted(self._files(), key=lambda file: file[1].st_mtime_ns)
        count, total = len(oldest_first) + 1, sum(status.st_size for _, status in oldest_first) + size
        for digest, status in oldest_first:
            if digest not in needed and not self._fits(count, total):
                self._remove(digest)
                count, total = count - 1, total - status.st_size
        if not self._fits(count, total):
            raise Overloaded(
                f"Unfinished jobs use too many references: the limits are {self._max_files:,} files and "
                f"{self._max_bytes:,} bytes",
                param="ref_audio",
                retry_after=RETRY_S,
            )

    def sweep(self, needed: Collection[str]) -> None:
        """Delete files that no new job has used for MAX_AGE_S, except those in `needed`, and leftovers.

        Do not call it during `write`, whose temporary files it would delete.
        """
        old = time.time() - MAX_AGE_S
        for digest, status in self._files():
            if status.st_mtime < old and digest not in needed:
                self._remove(digest)
        for leftover in self._path.glob(TEMPORARY_FILES):
            leftover.unlink(missing_ok=True)

    def _fits(self, count: int, total: int) -> bool:
        return count <= self._max_files and total <= self._max_bytes

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """Return the digest and the status of each file; empty if there is no folder."""
        try:
            with os.scandir(self._path) as entries:
                return [
                    (match[1], entry.stat(follow_symlinks=False))
                    for entry in entries
                    if (match := NAME.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)
                ]
        except FileNotFoundError:
            return []

    def _remove(self, digest: str) -> None:
        with suppress(OSError):  # in use (Windows): the next sweep tries again
            (self._path / f"{digest}.wav").unlink(missing_ok=True)
