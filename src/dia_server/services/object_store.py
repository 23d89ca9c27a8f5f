"""Object storage by obstore: immutable files that several servers share (DIA_STORAGE).

Errors name the cause in a few words. obstore's own texts are not passed on: they contain URLs, which may be
signed, and answers, which may contain the id of a key.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dia_server.errors import ObjectStoreUnavailable
from dia_server.services.durable_files import (
    GRACE_S,
    READ_SIZE,
    TEMPORARY_FILES,
    create_file,
    remove_old,
    write_file,
)
from dia_server.services.object_errors import explain
from dia_server.units import MIB

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Backend

T = TypeVar("T")
Owner = Callable[[], Awaitable[str]]
"""Returns the id of the database whose rows name the objects."""

CONNECT_S = 5
"""Maximum seconds to connect."""
ANSWER_S = 30.0
"""Maximum seconds to wait for an answer or for the next part of it."""
RATE = MIB
"""Bytes per second at which a write may be slow before it is given up."""
RETRIES = 2
"""Number of retries after a failed connection or a 5xx status."""
RETRY_AFTER_S = 5
"""Retry-After in seconds while the storage is away."""
MARKER = ".dia-server"
"""Object that marks the storage as the one that files were written to; it holds the id of the database."""


class StorageUnusable(Exception):
    """The server cannot start with this storage; the message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Status:
    size: int
    """Size of the object in bytes."""
    modified: datetime


def connect(url: str, owner: Owner) -> "ObjectStore":
    """Return the storage at `url`, a checked DIA_STORAGE; nothing is sent. Raises StorageUnusable."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise StorageUnusable("DIA_STORAGE needs obstore: install dia-server[storage]") from error
    parts = urlsplit(url)
    folder = Path(url2pathname(parts.path)) if parts.scheme == "file" else None
    if folder is not None and not folder.is_dir():
        raise StorageUnusable(f"DIA_STORAGE: there is no folder {folder}: create it, or mount its disk")
    try:
        backend = from_url(
            url,
            # the waits are limited here, because a client may take hours to read a result
            client_options={"allow_http": True, "connect_timeout": f"{CONNECT_S}s", "timeout": "1day"},
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": timedelta(seconds=ANSWER_S),
                "backoff": {"max_backoff": timedelta(seconds=1)},
            },
        )
    except (BaseError, ValueError, OSError) as error:
        raise StorageUnusable(f"DIA_STORAGE: {url} cannot be used: {explain(error)}") from None
    return ObjectStore(backend, url, folder, owner)


def check(url: str) -> None:
    """Raise StorageUnusable unless the storage at `url` answers and lets this server list objects; blocks.

    Call it in a process that is not forked afterwards: obstore's threads would be missing in the other one.
    """

    async def unknown() -> str:
        return ""

    asyncio.run(connect(url, unknown).check())


class ObjectStore:
    """Methods raise ObjectStoreUnavailable; names are paths such as `outputs/x.wav`."""

    def __init__(self, backend: "Backend", url: str, folder: Path | None, owner: Owner) -> None:
        from obstore.exceptions import AlreadyExistsError, BaseError

        self._backend = backend
        self._url = url
        self._folder = folder
        """Folder of a file:// URL; obstore would not fsync what it writes there."""
        self._owner = owner
        self._owner_id: str | None = None
        """What `owner` returned: writes must not wait for the database."""
        self._is_marked = False
        self._exists_error = AlreadyExistsError
        self._errors = (BaseError, ValueError, OSError)

    async def check(self) -> None:
        """See the function `check`."""
        try:
            await self.status(MARKER)
            await anext(self._parts(self._backend.list(MARKER, chunk_size=1)), None)
        except ObjectStoreUnavailable as error:
            raise StorageUnusable(f"DIA_STORAGE: {self._url}: {error}") from None

    async def mark(self) -> None:
        """Mark the storage as the one that files are written to, unless it is marked."""
        await self._create(MARKER, (await self._database_id()).encode())
        await self.require_marked()

    async def require_marked(self) -> None:
        """Raise if this is not the storage that files were written to.

        Its disk may be unmounted, DIA_STORAGE may name another place, or DIA_DATABASE_URL another database.
        """
        self._is_marked = False
        owner = await self._database_id()
        try:
            marker = (await self._read(MARKER)).decode(errors="replace")
        except FileNotFoundError:
            raise _not_ours(
                "is not the one that results were written to: is its disk mounted, and DIA_STORAGE right? If "
                f"it is, create an object {MARKER} in it, with the content {owner}"
            ) from None
        if marker != owner:
            raise _not_ours(
                "belongs to another database: check DIA_STORAGE and DIA_DATABASE_URL. If this database is in "
                f"its place, replace the content of the object {MARKER} by {owner}"
            )
        self._is_marked = True

    async def create(self, name: str, content: bytes) -> bool:
        """Store an object atomically; return False, and change nothing, if it exists."""
        if self._folder is not None or not self._is_marked:  # a disk may be unmounted at any time
            await self.require_marked()
        return await self._create(name, content)

    async def replace(self, name: str, content: bytes) -> None:
        """Store an object atomically, also if it exists."""
        if self._folder is not None:
            path = self._folder / name
            with self._reported("written"):
                return await asyncio.to_thread(write_file, path.parent, path.name, content)
        async with self._request("written", len(content)):
            await self._backend.put_async(name, content, mode="overwrite", use_multipart=False)

    async def status(self, name: str) -> Status | None:
        """Return the status of an object, None if it is missing."""
        async with self._request("read"):
            try:
                found = await self._backend.head_async(name)
            except FileNotFoundError:
                return None
        return Status(found["size"], found["last_modified"])

    async def read(self, name: str) -> bytes:
        """Return the content of an object; raises FileNotFoundError."""
        _, chunks = await self.open(name)
        return b"".join([chunk async for chunk in chunks])

    async def open(self, name: str) -> tuple[int, AsyncIterator[bytes]]:
        """Return the size of an object, and an iterator over its content; raises FileNotFoundError."""
        try:
            return await self._open(name)
        except FileNotFoundError:
            await self.require_marked()
            raise

    async def list(self, folder: str) -> dict[str, datetime]:
        """Map the names of the objects in `folder`, without it, to the times of their last change."""
        await self.require_marked()
        pages = self._parts(self._backend.list(f"{folder}/", chunk_size=1000))
        return {
            found["path"].removeprefix(f"{folder}/"): found["last_modified"]
            async for page in pages
            for found in page
        }

    async def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        async with self._request("changed"):
            with suppress(FileNotFoundError):
                await self._backend.delete_async(name)

    async def remove_leftovers(self) -> None:
        """Remove files that a server, killed while it wrote, left in the folder of a file:// URL."""
        if self._folder is not None:
            with self._reported("changed"):
                await asyncio.to_thread(remove_old, self._folder.glob(f"*/{TEMPORARY_FILES}"), GRACE_S)

    async def _database_id(self) -> str:
        if self._owner_id is None:
            self._owner_id = await self._owner()
        return self._owner_id

    async def _create(self, name: str, content: bytes) -> bool:
        if self._folder is not None:
            with self._reported("written"):
                return await asyncio.to_thread(create_file, self._folder / name, content)
        async with self._request("written", len(content)):
            try:
                await self._backend.put_async(name, content, mode="create", use_multipart=False)
            except self._exists_error:
                return False
        return True

    async def _open(self, name: str) -> tuple[int, AsyncIterator[bytes]]:
        async with self._request("read"):
            try:
                found = await self._backend.get_async(name)
            except FileNotFoundError:
                found = None
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return found.meta["size"], _cut(self._parts(found.stream(min_chunk_size=READ_SIZE)))

    async def _read(self, name: str) -> bytes:
        _, chunks = await self._open(name)
        return b"".join([chunk async for chunk in chunks])

    async def _parts(self, source: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield what `source` yields, and wait for each part at most ANSWER_S."""
        while True:
            async with self._request("read"):
                try:
                    part = await anext(source)
                except StopAsyncIteration:
                    return
            yield part

    @asynccontextmanager
    async def _request(self, verb: str, size: int = 0) -> AsyncIterator[None]:
        """Limit the time of a request that sends `size` bytes, and report its errors (see `_reported`)."""
        with self._reported(verb):
            async with asyncio.timeout(ANSWER_S + size / RATE):
                yield

    @contextmanager
    def _reported(self, verb: str) -> Iterator[None]:
        """Raise ObjectStoreUnavailable for every error of the storage."""
        try:
            yield
        except self._errors as error:
            raise ObjectStoreUnavailable(
                f"The storage cannot be {verb}: {explain(error)}", retry_after=RETRY_AFTER_S
            ) from None


def _not_ours(cause: str) -> ObjectStoreUnavailable:
    return ObjectStoreUnavailable(f"The storage {cause}", retry_after=RETRY_AFTER_S)


async def _cut(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield `parts` in chunks of at most READ_SIZE bytes."""
    async for part in parts:
        for start in range(0, len(part), READ_SIZE):
            yield part[start : start + READ_SIZE]
