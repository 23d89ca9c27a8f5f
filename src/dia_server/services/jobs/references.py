"""Keeps the references of jobs until the jobs are finished, so that they survive a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dia_server.services.jobs.store import JobStore
from dia_server.services.voices.reference_files import ReferenceFiles
from dia_server.services.voices.references import Reference


class JobReferences:
    def __init__(self, store: JobStore, files: ReferenceFiles) -> None:
        self._store = store
        self._files = files
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
            await self._files.keep(reference.clip.digest, reference.clip.wav, self._store.references)
            yield

    async def sweep(self) -> None:
        """Delete files that no unfinished job needs and no new job has used; raises StorageUnavailable."""
        async with self._lock:
            await self._files.sweep(self._store.references)
