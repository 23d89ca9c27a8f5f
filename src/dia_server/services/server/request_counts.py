"""Counts the requests of each client for the rate limits: for one server, or for all on one PostgreSQL."""

import time
from collections.abc import Callable
from typing import Protocol

import structlog
from sqlalchemy import BigInteger, Double, bindparam, cast, delete, extract, func
from sqlalchemy.dialects.postgresql import insert

from dia_server.db.engine import Database
from dia_server.db.models import RateCount
from dia_server.errors import StorageUnavailable
from dia_server.services.server.minute_counts import WINDOW_S, Count, MinuteCounts

log = structlog.get_logger()

TIMEOUT_S = 0.25
"""Maximum seconds that a request waits for its shared count."""
RETRY_S = 5.0
"""Seconds after a failure of the database in which this server counts alone."""
MAX_ADDRESS = 64
"""Maximum stored characters of a client's address, which may be any text that a trusted proxy sends."""

NOW = cast(extract("epoch", func.now()), Double)
MINUTE = cast(func.floor(NOW / WINDOW_S), BigInteger)
ADD = (
    insert(RateCount)
    .values(key=bindparam("key"), minute=MINUTE, count=1)
    .on_conflict_do_update(index_elements=["key", "minute"], set_={"count": RateCount.count + 1})
    .returning(RateCount.count, NOW)
)
"""Adds one to a count; returns it with the time by PostgreSQL's clock, which all servers share."""


class RequestCounts(Protocol):
    async def add(self, name: str, client: str, limit: int) -> Count:
        """Count a request of `client` against the limit `name`; return its number in this minute.

        Above `limit`, the number may be lower than that of all requests.
        """


class LocalCounts:
    """Counts the requests to this server."""

    def __init__(self) -> None:
        self._counts = MinuteCounts()

    async def add(self, name: str, client: str, limit: int) -> Count:
        return self._counts.add((name, client))


class SharedCounts:
    """Counts the requests to all servers on one PostgreSQL; while it is away, those to this server."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
        retry_s: float = RETRY_S,
    ) -> None:
        assert database.quick is not None
        self._sessions = database.sessions
        self._quick = database.quick
        self._clock = clock
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._ahead_s = 0.0
        """Seconds by which PostgreSQL's clock is ahead of this server's."""
        self._local = MinuteCounts(lambda: clock() + self._ahead_s)
        self._unshared = MinuteCounts(lambda: clock() + self._ahead_s)
        """Counts of the requests in `_local` that the database does not count."""
        self._ask_at = 0.0
        """Time of the monotonic clock from which to ask the database again after a failure."""

    async def add(self, name: str, client: str, limit: int) -> Count:
        key = f"{name} {client[:MAX_ADDRESS]}"
        local = self._local.add(key)
        if local.value > limit:
            return local
        shared = await self._add_shared(key)
        if shared is None:
            self._unshared.add(key)
            return local
        return Count(shared.value + self._unshared.get(key), shared.at)

    async def _add_shared(self, key: str) -> Count | None:
        """Count a request in the database; return None if it is away, or was within the last `retry_s` s."""
        if time.monotonic() < self._ask_at:
            return None
        try:
            value, at = await self._quick.run(ADD, self._timeout_s, key=key)
        except StorageUnavailable as error:
            self._ask_at = time.monotonic() + self._retry_s
            log.warning("rate limits count this server alone", cause=str(error), retry_s=self._retry_s)
            return None
        self._ahead_s = at - self._clock()
        return Count(value, at)

    async def forget_past(self) -> None:
        """Delete the counts of past minutes. One server has to call it now and then, for all."""
        async with self._sessions.begin() as session:
            await session.execute(delete(RateCount).where(RateCount.minute < MINUTE))
