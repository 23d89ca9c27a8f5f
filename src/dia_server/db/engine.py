"""The database: connections, short sessions, upgrades."""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import AsyncAdaptedQueuePool, Connection, PoolProxiedConnection, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import OperationalError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from dia_server.db.migrate import upgrade
from dia_server.errors import StorageUnavailable

BUSY_TIMEOUT_MS = 5_000
POOL_TIMEOUT_S = 5.0
"""Until who finds all connections in use is told so."""
RETRY_S = 5
SQLITE_TROUBLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
"""Failures that are the machine's, and may pass."""


class Database:
    """`async with database.sessions.begin() as session` is one short transaction."""

    def __init__(self, url: str) -> None:
        self._writing = _engine(url, "BEGIN IMMEDIATE")
        self._reading = _engine(url, "BEGIN")
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(
            self._writing, expire_on_commit=False
        )
        self.reads: async_sessionmaker[AsyncSession] = async_sessionmaker(
            self._reading, expire_on_commit=False
        )
        """Sessions that only read: they don't wait for a writer, nor make one wait.

        Their connections are others, which writers that wait for their turn can't use up.
        """

    async def upgrade(self) -> str:
        """Apply the migrations that are missing; returns the revision that the schema is at."""
        async with self._writing.begin() as connection:
            return await connection.run_sync(upgrade)

    async def close(self) -> None:
        await self._writing.dispose()
        await self._reading.dispose()


class _Pool(AsyncAdaptedQueuePool):
    """Names the failure where all connections stay in use: SQLAlchemy's own is none of the database."""

    def connect(self) -> PoolProxiedConnection:
        try:
            return super().connect()
        except TimeoutError as error:
            raise StorageUnavailable(
                "The database can't be used at the moment: all connections to it are in use",
                retry_after=RETRY_S,
            ) from error


def _engine(url: str, begin: str) -> AsyncEngine:
    """`begin` is how SQLite begins a transaction."""
    # parameters hold texts, which have no place in a log
    engine = create_async_engine(url, poolclass=_Pool, pool_timeout=POOL_TIMEOUT_S, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        if file := make_url(url).database:
            Path(file).parent.mkdir(parents=True, exist_ok=True)

        def on_begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        event.listen(engine.sync_engine, "connect", _on_connect)
        event.listen(engine.sync_engine, "begin", on_begin)
    event.listen(engine.sync_engine, "handle_error", _on_error)
    return engine


def _on_connect(connection: DBAPIConnection, _: Any) -> None:
    # The driver would begin transactions by itself, late, and never for DDL: a migration that fails
    # half-way would leave half a table. So it is told not to, and `on_begin` does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # a job that was accepted is kept through a power failure too: 0.4 ms a write on a good disk
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_error(context: ExceptionContext) -> None:
    """Name what is the matter with the disk or the database, rather than with a statement."""
    code: int | None = getattr(context.original_exception, "sqlite_errorcode", None)
    if code is not None and code & 0xFF not in SQLITE_TROUBLE:
        return  # a mistake in a statement of ours
    if isinstance(context.sqlalchemy_exception, OperationalError):
        raise StorageUnavailable(
            f"The database can't be used at the moment: {context.original_exception}", retry_after=RETRY_S
        ) from context.original_exception
