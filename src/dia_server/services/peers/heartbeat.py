"""Heartbeat: renews this server's lease, and takes over the work of servers whose lease has ended."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dia_server.errors import StorageUnavailable
from dia_server.services.peers.membership import HEARTBEAT_S, Membership

log = structlog.get_logger()

RENEWALS = 2
"""Renewals in a row before this server takes work over: after an outage of the database, or while this server
starts, the leases of living servers may have ended, and they get the time to renew them."""


class Heartbeat:
    """PostgreSQL only: `start` and `stop` it with the server."""

    def __init__(
        self,
        membership: Membership,
        on_beat: Callable[[], Awaitable[None]],
        *,
        interval_s: float = HEARTBEAT_S,
    ) -> None:
        """`on_beat` is called at each renewal from the second in a row; it takes over all orphaned work."""
        self._membership = membership
        self._on_beat = on_beat
        self._interval_s = interval_s
        self._renewals = 0
        """Renewals since the last failure."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._beat()
            except StorageUnavailable as error:
                self._renewals = 0
                log.warning("lease not renewed", error=str(error), retry_s=self._interval_s)
            except Exception as error:  # the next beat may succeed
                self._renewals = 0
                log.error("heartbeat failed", exc_info=error)

    async def _beat(self) -> None:
        self._renewals = self._renewals + 1 if await self._membership.renew() else 0
        if self._renewals >= RENEWALS:
            await self._membership.bury()
            await self._on_beat()
