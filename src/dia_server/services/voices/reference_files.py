"""The files of references that jobs use, named after their SHA-256: in a folder, or in the object storage."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Protocol

from dia_server.errors import Overloaded, PromptNotUsable, StorageUnavailable
from dia_server.services.digest_folder import MAX_BYTES, MAX_FILES, DigestFolder
from dia_server.services.object_folder import ObjectFolder

SUFFIX = ".wav"
RETRY_S = 30
"""Retry-After in seconds when unfinished jobs need the whole folder."""

Needed = Callable[[], Awaitable[Collection[str]]]
"""Returns the digests of the references that unfinished jobs need."""


class ReferenceFiles(Protocol):
    """Methods raise StorageUnavailable."""

    async def read(self, digest: str) -> bytes:
        """Return the WAV file with this SHA-256; raises PromptNotUsable."""

    async def keep(self, digest: str, wav: bytes, needed: Needed) -> None:
        """Store a file; raises Overloaded if unfinished jobs need too many."""

    async def sweep(self, needed: Needed) -> None:
        """Delete old files that are not needed. Do not call it during `keep`."""


class ReferenceFolder:
    """Keeps the references that unfinished jobs need, and as a cache the most recent others."""

    def __init__(
        self, path: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES, grace_s: float = 0.0
    ) -> None:
        """`grace_s`: see DigestFolder."""
        self._folder = DigestFolder(
            path, suffix=SUFFIX, max_files=max_files, max_bytes=max_bytes, grace_s=grace_s
        )
        self._max_files = max_files
        self._max_bytes = max_bytes

    async def read(self, digest: str) -> bytes:
        try:
            return await asyncio.to_thread(self._folder.read, digest)
        except OSError as error:
            raise _unreadable(str(error.strerror)) from error
        except ValueError:
            raise _changed() from None

    async def keep(self, digest: str, wav: bytes, needed: Needed) -> None:
        try:
            if await asyncio.to_thread(self._folder.use, digest) is not None:
                return
            if not await asyncio.to_thread(self._folder.has_room, len(wav)):
                await self._make_room(len(wav), await needed())
            await asyncio.to_thread(self._folder.write, digest, wav)
        except OSError as error:
            raise _unavailable(error) from error

    async def sweep(self, needed: Needed) -> None:
        try:
            await asyncio.to_thread(self._folder.sweep, await needed())
        except OSError as error:
            raise _unavailable(error) from error

    async def _make_room(self, size: int, needed: Collection[str]) -> None:
        if not await asyncio.to_thread(self._folder.make_room, size, needed):
            raise Overloaded(
                f"Unfinished jobs use too many references: the limits are {self._max_files:,} files and "
                f"{self._max_bytes:,} bytes",
                param="ref_audio",
                retry_after=RETRY_S,
            )


class StoredReferences:
    """References in the object storage, without limits."""

    def __init__(self, objects: ObjectFolder) -> None:
        self._objects = objects

    async def read(self, digest: str) -> bytes:
        try:
            wav = await self._objects.read(digest + SUFFIX)
        except FileNotFoundError:
            raise _unreadable("it is missing in the storage") from None
        if await asyncio.to_thread(lambda: hashlib.sha256(wav).hexdigest()) != digest:
            raise _changed()
        return wav

    async def keep(self, digest: str, wav: bytes, needed: Needed) -> None:
        await self._objects.put(digest + SUFFIX, wav)

    async def sweep(self, needed: Needed) -> None:
        async def names() -> set[str]:
            return {digest + SUFFIX for digest in await needed()}

        await self._objects.clean(names)


def _unreadable(cause: str) -> PromptNotUsable:
    return PromptNotUsable(f"The reference of the request cannot be read: {cause}", param="ref_audio")


def _changed() -> PromptNotUsable:
    return PromptNotUsable("The file of the request's reference has changed", param="ref_audio")


def _unavailable(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"The folder references/ cannot be used: {error.strerror}")
