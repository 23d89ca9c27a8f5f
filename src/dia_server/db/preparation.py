"""Creates or upgrades the database before the server starts, or explains in one line why it cannot."""

import sqlite3
from contextlib import closing

from alembic.util import CommandError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from dia_server.db.engine import Database
from dia_server.errors import StorageUnavailable

SUPPORTED = {"sqlite", "postgresql"}
"""Names of the databases that the tables, revisions and statements are written for."""
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""SQLite error codes of a damaged file."""


class DatabaseUnusable(Exception):
    """The server cannot start with this database; the message is one line that says what to do."""


def check_url(url: str) -> URL:
    """Return the parsed URL; raises DatabaseUnusable unless its driver is installed and asynchronous."""
    try:
        parsed = make_url(url)
        # the name postgresql+psycopg stands for two dialects, and get_dialect returns the synchronous one
        dialect = parsed.get_dialect().get_async_dialect_cls(parsed)
        dialect.import_dbapi()
    except ArgumentError as error:
        raise DatabaseUnusable(f"DIA_DATABASE_URL: {error}") from error
    except ImportError as error:
        hint = "; install dia-server[postgres]" if error.name == "psycopg" else ""
        raise DatabaseUnusable(f"DIA_DATABASE_URL: {error}{hint}") from error
    if not dialect.is_async or dialect.name not in SUPPORTED:
        raise DatabaseUnusable(
            f"DIA_DATABASE_URL: {parsed.drivername} cannot be used: name an asynchronous driver of "
            "SQLite or PostgreSQL, as in sqlite+aiosqlite:///dia.sqlite3 or postgresql+psycopg://user@host/name"
        )
    return parsed


async def prepare(url: str) -> str:
    """Create or upgrade the database at `url`; return its revision. Raises DatabaseUnusable."""
    parsed = check_url(url)
    is_file = parsed.get_backend_name() == "sqlite"
    name = parsed.database if is_file else parsed.render_as_string(hide_password=True)
    try:
        database = Database(url, log_outages=False)
        if is_file:
            _open_once(parsed.database or ":memory:")
        try:
            return await database.upgrade()
        finally:
            await database.close()
    except (OSError, sqlite3.Error, SQLAlchemyError, StorageUnavailable, CommandError) as error:
        raise DatabaseUnusable(f"The database {name} {_explain(error)}") from error


def _open_once(file: str) -> None:
    """Open and close the SQLite file `file` with `sqlite3`, so that errors show before aiosqlite opens it.

    If aiosqlite fails to open a file, its thread outlives the event loop.
    """
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _explain(error: Exception) -> str:
    if isinstance(error, CommandError):
        return f"was written by another version: {error}. Install that version, or put a backup in its place."
    original = error.orig if isinstance(error, DBAPIError) else error.__cause__ or error
    cause = str(original).strip().partition("\n")[0]
    if getattr(original, "sqlite_errorcode", 0) & 0xFF in DAMAGED:
        return f"is damaged: {cause}. Put a backup in its place, or move it away."
    if isinstance(error, OSError):
        cause = f"{error.filename}: {error.strerror}"
    return f"cannot be used: {cause}. See DIA_DATA_DIR and DIA_DATABASE_URL."
