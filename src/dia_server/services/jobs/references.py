"""Keeps the references of jobs until the jobs are finished, so that they survive a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dia_server.errors import StorageUnavailable
from dia_server.services.jobs.store import JobStore
from dia_server.services.voices.reference_folder import ReferenceFolder
from dia_server.services.voices.references import Clip, Reference


class JobReferences:
    def __init__(self, store: JobStore, folder: ReferenceFolder) -> None:
        self._store = store
        self._folder = folder
        self._lock = asyncio.Lock()
        """Held from the writing of a file until its job is in the database, and while files are deleted."""

    @asynccontextmanager
    async def keep(self, reference: Reference | None) -> AsyncIterator[None]:
        """Store the reference of the job that the `with` block adds to the database.

        Does nothing if it is None. Raises StorageUnavailable, or Overloaded if unfinished jobs need too many.
        """
        if reference is None:
            yield
            return
        async with self._lock:
            await self._store_clip(reference.clip)
            yield

    async def sweep(self) -> None:
        """Delete files that no unfinished job needs and no new job has used; raises StorageUnavailable."""
        async with self._lock:
            needed = await self._store.references()
            try:
                await asyncio.to_thread(self._folder.sweep, needed)
            except OSError as error:
                raise _unavailable(error) from error

    async def _store_clip(self, clip: Clip) -> None:
        try:
            if await asyncio.to_thread(self._folder.touch, clip.digest):
                return
            if not await asyncio.to_thread(self._folder.has_room, len(clip.wav)):
                needed = await self._store.references()
                await asyncio.to_thread(self._folder.make_room, len(clip.wav), needed)
            await asyncio.to_thread(self._folder.write, clip.digest, clip.wav)
        except OSError as error:
            raise _unavailable(error) from error


def _unavailable(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"The folder references/ cannot be used: {error.strerror}")
