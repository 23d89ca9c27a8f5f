"""The database: connections, short sessions, upgrades."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from dia_server.db.migrate import upgrade

BUSY_TIMEOUT_MS = 5_000


class Database:
    """`async with database.sessions.begin() as session` is one short transaction."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(url)
        if self._engine.dialect.name == "sqlite":
            if file := make_url(url).database:
                Path(file).parent.mkdir(parents=True, exist_ok=True)
            event.listen(self._engine.sync_engine, "connect", _on_connect)
            event.listen(self._engine.sync_engine, "begin", _on_begin)
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(
            self._engine, expire_on_commit=False
        )

    async def upgrade(self) -> str:
        """Apply the migrations that are missing; returns the revision that the schema is at."""
        async with self._engine.begin() as connection:
            return await connection.run_sync(upgrade)

    async def close(self) -> None:
        await self._engine.dispose()


def _on_connect(connection: DBAPIConnection, _: Any) -> None:
    # The driver would begin transactions by itself, late, and never for DDL: a migration that fails
    # half-way would leave half a table. So it is told not to, and `_on_begin` does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
