"""Heartbeat: renews this server's lease, and has the work of servers whose lease has ended taken over."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dia_server.errors import StorageUnavailable
from dia_server.services.peers.membership import HEARTBEAT_S, Membership

log = structlog.get_logger()

RENEWALS = 2
"""Renewals in a row before this server takes work over: after an outage of the database, or while this server
starts, the leases of living servers may have ended, and they get the time to renew them."""
RETRY_S = 1.0
"""Maximum seconds until a failed renewal is tried again."""


class Heartbeat:
    """PostgreSQL only: `start` and `stop` it with the server."""

    def __init__(
        self,
        membership: Membership,
        take_over: Callable[[], Awaitable[None]],
        *,
        interval_s: float = HEARTBEAT_S,
    ) -> None:
        """`take_over` takes over all orphaned work."""
        self._membership = membership
        self._take_over = take_over
        self._interval_s = interval_s
        self._renewals = 0
        """Renewals since the last failure."""
        self._renewing: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[None] | None = None
        """A takeover, which may wait for files; the lease is renewed meanwhile."""

    def start(self) -> None:
        self._renewing = asyncio.create_task(self._run())

    async def stop(self) -> None:
        for task in (self._renewing, self._taking):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        wait_s = self._interval_s
        while True:
            await asyncio.sleep(wait_s)
            try:
                self._renewals = self._renewals + 1 if await self._membership.renew() else 0
                wait_s = self._interval_s
            except Exception as error:  # the next renewal may succeed
                self._renewals, wait_s = 0, min(RETRY_S, self._interval_s)
                cause = None if isinstance(error, StorageUnavailable) else error
                log.warning("lease not renewed", error=str(error), exc_info=cause, retry_s=wait_s)
            if self._renewals >= RENEWALS and (self._taking is None or self._taking.done()):
                self._taking = asyncio.create_task(self._take())

    async def _take(self) -> None:
        try:
            await self._membership.bury()
            await self._take_over()
        except Exception as error:  # the next beat may succeed
            cause = None if isinstance(error, StorageUnavailable) else error
            log.warning("work not taken over", error=str(error), exc_info=cause, retry_s=self._interval_s)
