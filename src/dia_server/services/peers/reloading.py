"""Reloading: what a server keeps in memory is read from the database again when a peer changes it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from dia_server.errors import StorageUnavailable

log = structlog.get_logger()

RETRY_S = 1.0
"""Seconds until a failed load is tried again."""
INTERVAL_S = 30.0
"""Seconds between loads of everything, because a notification may be lost."""


class Reloading:
    """Loads in the background, one at a time: `start` and `stop` it with the server."""

    def __init__(
        self, loads: Mapping[str, Callable[[], Awaitable[None]]], *, interval_s: float = INTERVAL_S
    ) -> None:
        """`loads` maps the names of tables to functions that read them into memory, called in this order."""
        self._loads = loads
        self._interval_s = interval_s
        self._stale: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def changed(self, table: str) -> None:
        """Load `table` soon; names of other tables are ignored."""
        if table in self._loads:
            self._stale.add(table)
            self._wake.set()

    def all_changed(self) -> None:
        """Load every table soon."""
        self._stale.update(self._loads)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                # not `wait_for`, which may lose a cancellation in Python 3.11
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            except TimeoutError:
                self.all_changed()
            self._wake.clear()
            while self._stale:
                for table in [table for table in self._loads if table in self._stale]:
                    self._stale.discard(table)
                    await self._load(table)

    async def _load(self, table: str) -> None:
        try:
            await self._loads[table]()
        except Exception as error:  # what is in memory stays in use
            cause = None if isinstance(error, StorageUnavailable) else error
            log.warning("table not loaded", table=table, error=str(error), exc_info=cause, retry_s=RETRY_S)
            self._stale.add(table)
            await asyncio.sleep(RETRY_S)
