"""The database: connection pools, sessions, upgrades."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, AsyncAdaptedQueuePool, Connection, PoolProxiedConnection, event
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from dia_server.db.file import RETRY_S, DatabaseFile
from dia_server.db.migrate import upgrade
from dia_server.errors import StorageUnavailable

CONNECT_TIMEOUT_S = 5
"""Maximum seconds for psycopg to connect to one address of the server, unless the URL says otherwise."""
BUSY_TIMEOUT_MS = 5_000
"""Maximum milliseconds that SQLite waits for a lock of another connection."""
POOL_TIMEOUT_S = 5.0
"""Maximum seconds to wait for the write lock or a pooled connection; then StorageUnavailable is raised."""
TRANSIENT_ERRORS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
"""SQLite error codes of conditions that may be temporary, such as a lock or a full disk."""
READ_ONLY_TRANSACTION = "25006"
"""SQLSTATE of a write to a PostgreSQL server that only reads, such as a standby."""


class Database:
    """Opens sessions: `async with database.sessions.begin() as session` is one transaction; keep it short."""

    def __init__(
        self, url: str, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS, pool_timeout_s: float = POOL_TIMEOUT_S
    ) -> None:
        self._file = _file(make_url(url))
        self._writing = _engine(url, "BEGIN IMMEDIATE", self._file, busy_timeout_ms, pool_timeout_s)
        self._reading = _engine(url, "BEGIN", self._file, busy_timeout_ms, pool_timeout_s)
        self.sessions: async_sessionmaker[AsyncSession] = (
            async_sessionmaker(self._writing, expire_on_commit=False)
            if self._file is None
            else _SerializedWrites(self._writing, self._file, pool_timeout_s)
        )
        self.reads: async_sessionmaker[AsyncSession] = async_sessionmaker(
            self._reading, expire_on_commit=False
        )
        """Sessions for reads. With a SQLite file, they neither wait for a writer nor delay one.

        They have a connection pool of their own, which waiting writers cannot exhaust.
        """

    async def upgrade(self) -> str:
        """Apply missing migrations; return the schema's revision.

        From then on a missing SQLite file is not created again: StorageUnavailable is raised instead.
        """
        async with self._writing.begin() as connection:
            revision = await connection.run_sync(upgrade)
        if self._file is not None and not self._file.is_open:
            self._file.open()
        return revision

    async def require_writable(self) -> None:
        """Raise StorageUnavailable if the SQLite file is not writable; other databases are not checked."""
        if self._file is not None:
            await asyncio.to_thread(self._file.require_writable)

    async def close(self) -> None:
        await self._writing.dispose()
        await self._reading.dispose()
        if self._file is not None:
            self._file.close()


class _SerializedWrites(async_sessionmaker[AsyncSession]):
    """Runs transactions on a SQLite file in order of arrival; SQLite alone lets writers race for its lock."""

    def __init__(self, engine: AsyncEngine, file: DatabaseFile, timeout_s: float) -> None:
        super().__init__(engine, expire_on_commit=False)
        self._file = file
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:  # type: ignore[override]
        await self._acquire()
        try:
            self._file.require_same()
            async with super().begin() as session:
                yield session
            self._file.require_same()  # raises if the commit went to a deleted or replaced file
        finally:
            self._lock.release()

    async def _acquire(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._lock.acquire()
        except TimeoutError as error:
            raise StorageUnavailable(
                "The database cannot be used at the moment: other writes take too long",
                retry_after=RETRY_S,
            ) from error


class _Pool(AsyncAdaptedQueuePool):
    """Raises StorageUnavailable if no connection becomes free, instead of SQLAlchemy's TimeoutError."""

    def connect(self) -> PoolProxiedConnection:
        try:
            return super().connect()
        except PoolTimeoutError as error:
            raise StorageUnavailable(
                "The database cannot be used at the moment: all connections to it are in use",
                retry_after=RETRY_S,
            ) from error


def _file(url: URL) -> DatabaseFile | None:
    """Return the file of a SQLite database; None if it is in memory, a URI, or not SQLite."""
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"} or "uri" in url.query:
        return None
    return DatabaseFile(Path(url.database or ""))


def _engine(
    url: str, begin: str, file: DatabaseFile | None, busy_timeout_ms: int, pool_timeout_s: float
) -> AsyncEngine:
    """Return an SQLAlchemy engine; `begin` is the statement that begins its transactions in SQLite."""
    parsed = make_url(url)
    engine = create_async_engine(
        parsed,
        poolclass=_Pool,
        pool_timeout=pool_timeout_s,
        # replaces connections that were lost while they were idle, as when the database restarts
        pool_pre_ping=parsed.get_backend_name() != "sqlite",
        # parameters contain clients' texts, which must not be logged
        hide_parameters=True,
        connect_args=_connect_args(parsed),
    )
    if engine.dialect.name == "sqlite":
        if file is not None:
            file.path.parent.mkdir(parents=True, exist_ok=True)

        def before_connect(_: Dialect, record: Any, arguments: list[Any], named: dict[str, Any]) -> None:
            if file is not None and file.is_open:
                file.require_same()
                arguments[:] = [f"file:{quote(str(file.path.absolute()))}?mode=rw"]
                named["uri"] = True

        def on_begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        event.listen(engine.sync_engine, "do_connect", before_connect)
        event.listen(engine.sync_engine, "connect", partial(_on_connect, busy_timeout_ms))
        event.listen(engine.sync_engine, "begin", on_begin)
    event.listen(engine.sync_engine, "handle_error", _on_error)
    return engine


def _connect_args(url: URL) -> dict[str, Any]:
    """Return psycopg's timeout, because its own is 130 s for a host that does not answer."""
    if url.get_driver_name() != "psycopg" or "connect_timeout" in url.query:
        return {}
    return {"connect_timeout": CONNECT_TIMEOUT_S}


def _on_connect(busy_timeout_ms: int, connection: DBAPIConnection, _: Any) -> None:
    # By default the driver begins transactions late and never for DDL, so that a failed migration would
    # not be rolled back. `on_begin` begins them instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # an accepted job survives a power failure; costs 0.4 ms per write on a good disk
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_error(context: ExceptionContext) -> None:
    """Raise StorageUnavailable for an error that may be temporary."""
    if context.is_pre_ping:
        return  # the pool connects anew; if that fails, it is called again
    if _is_temporary(context):
        cause = str(context.original_exception).partition("\n")[0]  # libpq adds advice in further lines
        raise StorageUnavailable(
            f"The database cannot be used at the moment: {cause}", retry_after=RETRY_S
        ) from context.original_exception


def _is_temporary(context: ExceptionContext) -> bool:
    """Return False for errors that a retry cannot mend: a bug, a violated constraint, a damaged file."""
    original = context.original_exception
    if context.sqlalchemy_exception is None:
        return False  # not the database's: a cancelled task, which SQLAlchemy calls a disconnect
    is_operational = isinstance(context.sqlalchemy_exception, OperationalError)
    if context.dialect.name == "sqlite":
        code: int | None = getattr(original, "sqlite_errorcode", None)
        return is_operational and (code is None or code & 0xFF in TRANSIENT_ERRORS)
    sqlstate: str | None = getattr(original, "sqlstate", None)
    return is_operational or context.is_disconnect or sqlstate == READ_ONLY_TRANSACTION
