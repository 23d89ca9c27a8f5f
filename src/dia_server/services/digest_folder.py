"""A bounded folder of files that are named after the SHA-256 of their content. All methods block."""

import hashlib
import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from dia_server.services.durable_files import TEMPORARY_FILES, remove_old, write_file
from dia_server.units import MIB

MAX_FILES = 1024
MAX_BYTES = 512 * MIB
MAX_AGE_S = 24 * 3600.0
"""Seconds after its last use at which `sweep` deletes a file that is not needed."""


class DigestFolder:
    """Keeps the files that are needed, and as a cache the most recent others."""

    def __init__(
        self,
        path: Path,
        *,
        suffix: str = "",
        max_files: int = MAX_FILES,
        max_bytes: int = MAX_BYTES,
        grace_s: float = 0.0,
    ) -> None:
        """Names end in `suffix`. Temporary files younger than `grace_s` seconds may be another server's."""
        self._path = path
        self._suffix = suffix
        self._name = re.compile(rf"([0-9a-f]{{64}}){re.escape(suffix)}")
        """Names of the folder's files; any other file is left alone."""
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._grace_s = grace_s

    def read(self, digest: str) -> bytes:
        """Return the file with this SHA-256; raises OSError, or ValueError if the file has changed."""
        stored = self._file(digest).read_bytes()
        if hashlib.sha256(stored).hexdigest() != digest:
            raise ValueError("the file has changed")
        return stored

    def use(self, digest: str) -> bytes | None:
        """Return a file and mark it as used now; None if it is missing or damaged, or cannot be read."""
        try:
            stored = self.read(digest)
            os.utime(self._file(digest))
        except (OSError, ValueError):
            return None
        return stored

    def write(self, digest: str, content: bytes) -> None:
        """Store a file so that it survives a power failure; raises OSError."""
        write_file(self._path, self._file(digest).name, content)

    def make_room(self, size: int, needed: Collection[str]) -> bool:
        """Delete the least recent files, except those in `needed`, until one more of `size` bytes fits.

        Returns False if the files in `needed` leave no room, or the file is larger than the limit.
        """
        if size > self._max_bytes:
            return False
        oldest_first = sorted(self._files(), key=lambda file: file[1].st_mtime_ns)
        count, total = len(oldest_first) + 1, sum(status.st_size for _, status in oldest_first) + size
        for digest, status in oldest_first:
            if digest not in needed and not self._fits(count, total):
                self._remove(digest)
                count, total = count - 1, total - status.st_size
        return self._fits(count, total)

    def has_room(self, size: int) -> bool:
        """Return whether one more file of `size` bytes is within the limits."""
        sizes = [status.st_size for _, status in self._files()]
        return self._fits(len(sizes) + 1, sum(sizes) + size)

    def sweep(self, needed: Collection[str]) -> None:
        """Delete files that have not been used for MAX_AGE_S, except those in `needed`, and leftovers.

        Do not call it during `write`, whose temporary files it may delete.
        """
        old = time.time() - MAX_AGE_S
        for digest, status in self._files():
            if status.st_mtime < old and digest not in needed:
                self._remove(digest)
        remove_old(self._path.glob(TEMPORARY_FILES), self._grace_s)

    def _file(self, digest: str) -> Path:
        return self._path / (digest + self._suffix)

    def _fits(self, count: int, total: int) -> bool:
        return count <= self._max_files and total <= self._max_bytes

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """Return the digest and the status of each file; empty if there is no folder."""
        try:
            with os.scandir(self._path) as entries:
                return [
                    (match[1], entry.stat(follow_symlinks=False))
                    for entry in entries
                    if (match := self._name.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)
                ]
        except FileNotFoundError:
            return []

    def _remove(self, digest: str) -> None:
        with suppress(OSError):  # in use (Windows): the next sweep tries again
            self._file(digest).unlink(missing_ok=True)
