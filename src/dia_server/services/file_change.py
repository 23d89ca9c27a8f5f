"""Changes of files that belong to database rows: in a folder, or in an object storage."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from dia_server.services.durable_files import FileChange


class Change(Protocol):
    """`add` each file, then `apply` and, once the database has committed, `cleanup`; or `rollback`.

    `add` and `apply` raise OSError or StorageUnavailable.
    """

    committed: dict[str, str]
    """Values that the database has once it has committed, by key: a start that finds the change interrupted
    undoes it if the database has others."""

    async def add(self, name: str, content: bytes | None) -> None:
        """Stage a file; None removes it."""

    async def apply(self) -> None: ...

    async def rollback(self) -> None: ...

    async def cleanup(self) -> None: ...


class FolderChange:
    """Runs a FileChange in threads."""

    def __init__(self, change: FileChange) -> None:
        self._change = change
        self.committed = change.committed

    async def add(self, name: str, content: bytes | None) -> None:
        await asyncio.to_thread(self._change.add, name, content)

    async def apply(self) -> None:
        await asyncio.to_thread(self._change.apply)

    async def rollback(self) -> None:
        await asyncio.to_thread(self._change.rollback)

    async def cleanup(self) -> None:
        await asyncio.to_thread(self._change.cleanup)


class ObjectChange:
    """Stores immutable objects before the rows that name them; objects without a row are removed later."""

    def __init__(self, put: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._put = put
        self.committed: dict[str, str] = {}

    async def add(self, name: str, content: bytes | None) -> None:
        if content is not None:
            await self._put(name, content)

    async def apply(self) -> None:
        """Do nothing."""

    async def rollback(self) -> None:
        """Do nothing."""

    async def cleanup(self) -> None:
        """Do nothing."""
