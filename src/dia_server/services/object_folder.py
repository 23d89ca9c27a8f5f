"""The objects of one kind in the object storage; those that are named by digest are read through a cache."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta

import structlog

from dia_server.services.digest_folder import DigestFolder
from dia_server.services.durable_files import GRACE_S
from dia_server.services.file_change import ObjectChange
from dia_server.services.object_store import ObjectStore

log = structlog.get_logger()

Names = Callable[[], Awaitable[Collection[str]]]
"""Returns the names of the files that the database's rows name."""

GRACE = timedelta(seconds=GRACE_S)


class ObjectFolder:
    """Methods raise StorageUnavailable."""

    def __init__(self, store: ObjectStore, folder: str, cache: DigestFolder | None = None) -> None:
        """With a `cache`, the name of each object begins with the SHA-256 of its content."""
        self._store = store
        self._folder = folder
        self._cache = cache

    def change(self) -> ObjectChange:
        return ObjectChange(self.put)

    async def put(self, name: str, content: bytes) -> None:
        """Store an object, unless it exists; equal names mean equal content.

        An object that `clean` would soon find old is stored again: its row is not committed yet. So is one
        that a power failure has cut short.
        """
        path = self._path(name)
        if await self._store.create(path, content):
            return
        status = await self._store.status(path)
        if status is None or status.size != len(content) or _age(status.modified) > GRACE / 2:
            await self._store.replace(path, content)

    async def read(self, name: str) -> bytes:
        """Return the content of an object, which the caller verifies; raises FileNotFoundError."""
        if self._cache is None:
            return await self._store.read(self._path(name))
        digest = name.partition(".")[0]
        if (kept := await asyncio.to_thread(self._cache.use, digest)) is not None:
            return kept
        content = await self._store.read(self._path(name))
        await asyncio.to_thread(_keep, self._cache, digest, content)
        return content

    async def remove(self, names: Iterable[str]) -> None:
        """Do nothing: another server may be about to name such an object; `clean` removes it."""

    async def clean(self, names: Names) -> None:
        """Remove objects that are older than GRACE_S and that none of `names` names."""
        found = await self._store.list(self._folder)
        if old := {name for name, modified in found.items() if _age(modified) > GRACE}:
            for name in old.difference(await names()):
                status = await self._store.status(self._path(name))
                if status is not None and _age(status.modified) > GRACE:  # not stored again meanwhile
                    await self._store.remove(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"


def _age(modified: datetime) -> timedelta:
    return datetime.now(UTC) - modified


def _keep(cache: DigestFolder, digest: str, content: bytes) -> None:
    """Store `content` in the cache; log an error of its disk."""
    try:
        if cache.make_room(len(content), ()):
            cache.write(digest, content)
    except OSError as error:
        log.warning("file not cached", cause=error.strerror)
