"""Statements that may not keep a request waiting: one round trip each, and a bound on the time."""

import asyncio
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncEngine

from dia_server.db.file import RETRY_S
from dia_server.errors import StorageUnavailable


class QuickStatements:
    """Runs single statements, each of which is a transaction of its own, on an engine in AUTOCOMMIT mode."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._running: set[asyncio.Task[tuple[Any, ...]]] = set()

    async def run(self, statement: Executable, timeout_s: float, **parameters: Any) -> tuple[Any, ...]:
        """Return the only row of `statement`, with `parameters`.

        Raises StorageUnavailable, after `timeout_s` seconds at most. A statement that takes longer
        is not cancelled, which may take psycopg 10 s. It ends by itself.
        """
        task = asyncio.create_task(self._replacing_lost_connections(statement, parameters))
        self._running.add(task)
        task.add_done_callback(self._forget)
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            raise StorageUnavailable(
                "The database cannot be used at the moment: PostgreSQL does not answer", retry_after=RETRY_S
            )
        return task.result()

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._engine.dispose()

    async def _replacing_lost_connections(
        self, statement: Executable, parameters: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Run `statement`, and again if it fails: its connection may have been lost while it was idle.

        A ping before each statement would cost a second round trip.
        """
        try:
            return await self._execute(statement, parameters)
        except StorageUnavailable:
            return await self._execute(statement, parameters)

    async def _execute(self, statement: Executable, parameters: dict[str, Any]) -> tuple[Any, ...]:
        async with self._engine.connect() as connection:
            return tuple((await connection.execute(statement, parameters)).one())

    def _forget(self, task: asyncio.Task[tuple[Any, ...]]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved, also if no caller waits any more
