"""Changes files and database rows together: all of them, or none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.errors import StorageUnavailable
from dia_server.services.durable_files import FileChange


@asynccontextmanager
async def committing(
    change: FileChange, sessions: async_sessionmaker[AsyncSession], what: str
) -> AsyncIterator[AsyncSession]:
    """Yield a session for the rows; once the `with` block has ended, apply `change`, then commit.

    If anything fails, files and rows stay as they were. Raises StorageUnavailable, which calls the files
    `what`, if the disk or the database fails.
    """
    try:
        await asyncio.to_thread(change.stage)
        async with sessions.begin() as session:
            yield session
            await session.flush()
            await asyncio.to_thread(change.apply)
    except BaseException as error:
        await asyncio.to_thread(change.rollback)
        if isinstance(error, OSError):
            raise StorageUnavailable(f"The {what} cannot be written: {error.strerror}") from error
        if isinstance(error, DBAPIError):
            raise StorageUnavailable(f"The database cannot be written: {error.orig}") from error
        raise
    await asyncio.to_thread(change.cleanup)
