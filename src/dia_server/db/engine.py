"""The database: connection pools, sessions, upgrades."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import structlog
from sqlalchemy import (
    URL,
    AsyncAdaptedQueuePool,
    Connection,
    PoolProxiedConnection,
    event,
    func,
    select,
    text,
)
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from dia_server.db import postgres
from dia_server.db.file import RETRY_S, DatabaseFile
from dia_server.db.migrate import upgrade
from dia_server.db.quick import QuickStatements
from dia_server.errors import StorageUnavailable

log = structlog.get_logger()

CONNECTIONS = 20
"""Maximum connections of a server to PostgreSQL: four servers fit into its default of 100."""
QUICK_CONNECTIONS = 2
"""Connections of `Database.quick`."""
RESERVED_CONNECTIONS = QUICK_CONNECTIONS + 1
"""Connections to PostgreSQL that transactions cannot have: those for quick statements, and one to listen."""
QUICK_POOL_TIMEOUT_S = 0.25
"""Maximum seconds that a quick statement waits for a connection."""
PROBE_TIMEOUT_S = 3.0
"""Maximum seconds until PostgreSQL has answered `require_writable`."""
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


class Database:
    """Opens sessions: `async with database.sessions.begin() as session` is one transaction; keep it short."""

    def __init__(
        self,
        url: str,
        *,
        busy_timeout_ms: int = BUSY_TIMEOUT_MS,
        pool_timeout_s: float = POOL_TIMEOUT_S,
        connections: int = CONNECTIONS,
        log_outages: bool = True,
    ) -> None:
        """`connections` is the maximum of connections to PostgreSQL, more than RESERVED_CONNECTIONS.

        `log_outages` says whether to log PostgreSQL's errors, whose texts StorageUnavailable leaves out.
        """
        parsed = make_url(url)
        self.shared = parsed.get_backend_name() == "postgresql"
        """Whether several servers may use the database at the same time."""
        self.application = f"dia-server {uuid4()}"
        """Name by which PostgreSQL knows the connections of this server."""
        self._file = _file(parsed)
        self.quick: QuickStatements | None = None
        """Runs statements that may not wait for transactions; None for SQLite."""
        if parsed.get_backend_name() == "sqlite":
            self._writing = _sqlite(parsed, "BEGIN IMMEDIATE", self._file, busy_timeout_ms, pool_timeout_s)
            self._reading = _sqlite(parsed, "BEGIN", self._file, busy_timeout_ms, pool_timeout_s)
        else:
            size = connections - RESERVED_CONNECTIONS
            # replaces connections that were lost while they were idle, as when the database restarts
            self._writing = _postgres(parsed, self.application, size, pool_timeout_s, pool_pre_ping=True)
            self._reading = self._writing
            quick = _postgres(
                parsed,
                self.application,
                QUICK_CONNECTIONS,
                QUICK_POOL_TIMEOUT_S,
                isolation_level="AUTOCOMMIT",
            )
            self.quick = QuickStatements(quick)
            for engine in self._writing, quick:
                event.listen(engine.sync_engine, "handle_error", partial(_on_postgres_error, log_outages))
        self.sessions: async_sessionmaker[AsyncSession] = (
            async_sessionmaker(self._writing, expire_on_commit=False)
            if self._file is None
            else _SerializedWrites(self._writing, self._file, pool_timeout_s)
        )
        self.reads: async_sessionmaker[AsyncSession] = async_sessionmaker(
            self._reading, expire_on_commit=False
        )
        """Sessions for reads. With a SQLite file, they neither wait for a writer nor delay one.

        There they have a connection pool of their own, which waiting writers cannot exhaust. On PostgreSQL
        they share the writers' pool: writers seldom wait there, and for LOCK_TIMEOUT_S at most.
        """

    async def upgrade(self) -> str:
        """Apply missing migrations; return the schema's revision.

        From then on a missing SQLite file is not created again: StorageUnavailable is raised instead.
        """
        async with self._writing.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text(postgres.WITHOUT_TIMEOUTS))
            revision = await connection.run_sync(upgrade)
        if self._file is not None and not self._file.is_open:
            self._file.open()
        return revision

    async def require_writable(self) -> None:
        """Raise StorageUnavailable if the SQLite file is not writable, or PostgreSQL away or read-only."""
        if self._file is not None:
            await asyncio.to_thread(self._file.require_writable)
        if self.quick is not None:
            query = select(func.current_setting("transaction_read_only"))
            (read_only,) = await self.quick.run(query, PROBE_TIMEOUT_S)
            if read_only == "on":
                raise _unavailable(postgres.CAUSES[postgres.READ_ONLY_TRANSACTION])

    async def close(self) -> None:
        if self.quick is not None:
            await self.quick.close()
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
            raise _unavailable("other writes take too long") from error


class _Pool(AsyncAdaptedQueuePool):
    """Raises StorageUnavailable if no connection becomes free, instead of SQLAlchemy's TimeoutError."""

    def connect(self) -> PoolProxiedConnection:
        try:
            return super().connect()
        except PoolTimeoutError as error:
            raise _unavailable("all connections to it are in use") from error


def _file(url: URL) -> DatabaseFile | None:
    """Return the file of a SQLite database; None if it is in memory, a URI, or not SQLite."""
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"} or "uri" in url.query:
        return None
    return DatabaseFile(Path(url.database or ""))


def _sqlite(
    url: URL, begin: str, file: DatabaseFile | None, busy_timeout_ms: int, pool_timeout_s: float
) -> AsyncEngine:
    """Return an SQLAlchemy engine for SQLite whose transactions begin with the statement `begin`."""
    engine = _engine(url, pool_timeout=pool_timeout_s)
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
    event.listen(engine.sync_engine, "handle_error", _on_sqlite_error)
    return engine


def _postgres(url: URL, application: str, size: int, pool_timeout_s: float, **options: Any) -> AsyncEngine:
    """Return an SQLAlchemy engine for PostgreSQL with up to `size` connections, named `application`."""
    return _engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=pool_timeout_s,
        connect_args=postgres.connect_args(url, application),
        **options,
    )


def _engine(url: URL, **options: Any) -> AsyncEngine:
    # parameters contain clients' texts, which must not be logged
    return create_async_engine(url, poolclass=_Pool, hide_parameters=True, **options)


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


def _on_sqlite_error(context: ExceptionContext) -> None:
    """Raise StorageUnavailable for an error that may be temporary."""
    if _is_temporary(context):
        raise _unavailable(str(context.original_exception)) from context.original_exception


def _on_postgres_error(log_outages: bool, context: ExceptionContext) -> None:
    """Raise StorageUnavailable for an error that may be temporary."""
    if context.is_pre_ping:
        return  # the pool connects anew; if that fails, it is called again
    if _is_temporary(context):
        original = context.original_exception
        if log_outages:  # libpq adds advice in further lines
            log.warning("database unavailable", cause=str(original).partition("\n")[0])
        raise _unavailable(postgres.cause_of(original)) from original


def _unavailable(cause: str) -> StorageUnavailable:
    return StorageUnavailable(f"The database cannot be used at the moment: {cause}", retry_after=RETRY_S)


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
    return is_operational or context.is_disconnect or sqlstate == postgres.READ_ONLY_TRANSACTION
