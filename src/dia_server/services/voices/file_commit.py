"""Changes files and database rows together: all of them, or none."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.errors import StorageUnavailable
from dia_server.services.file_change import Change


@asynccontextmanager
async def committing(
    change: Change,
    files: Mapping[str, bytes | None],
    sessions: async_sessionmaker[AsyncSession],
    what: str,
) -> AsyncIterator[AsyncSession]:
    """Yield a session for the rows; once the `with` block has ended, apply `change`, then commit.

    `files` maps the names of the files in `change` to their new content; None removes a file. If anything
    fails, files and rows stay as they were. Raises StorageUnavailable, which calls the files `what`, if the
    storage or the database fails.
    """
    try:
        for name, content in files.items():
            await change.add(name, content)
        async with sessions.begin() as session:
            yield session
            await session.flush()
            await change.apply()
    except BaseException as error:
        await change.rollback()
        if isinstance(error, OSError):
            raise StorageUnavailable(f"The {what} cannot be written: {error.strerror}") from error
        if isinstance(error, DBAPIError):
            cause = str(error.orig).partition("\n")[0]  # PostgreSQL quotes values in further lines
            raise StorageUnavailable(f"The database cannot be written: {cause}") from error
        raise
    await change.cleanup()
