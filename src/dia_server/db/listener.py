"""A connection to PostgreSQL outside of the pools: it hears notifications, and holds the leader's lock.

Both need one connection for as long as the server runs, so PgBouncer must not hand it to others after each
transaction. Notifications that are sent while it is broken are lost.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy.engine import make_url

from dia_server.db.postgres import connect_args

if TYPE_CHECKING:
    from psycopg import AsyncConnection

log = structlog.get_logger()

CHANNEL = "dia"
LEAD = b"SELECT pg_try_advisory_lock(hashtextextended('dia-server leader', 0))"
LED = b"SELECT true"
"""Statement of a server that leads already; it shows whether the connection still works."""
RETRY_S = 1.0
"""Seconds until a broken connection is opened again."""
POLL_S = 5.0
"""Seconds between attempts to lead."""


class Listener:
    """Calls functions on the event loop: `start` and `stop` it with the server."""

    def __init__(
        self,
        url: str,
        *,
        application: str,
        on_connect: Callable[[], None],
        on_message: Callable[[str], None],
        on_lead: Callable[[bool], None],
        poll_s: float = POLL_S,
    ) -> None:
        """`application` is the name of the connection (see `Database.application`).

        `on_lead` is called when this server begins to lead (True) and when it no longer does (False).
        """
        self._url = make_url(url)
        self._application = application
        self._on_connect = on_connect
        self._on_message = on_message
        self._on_lead = on_lead
        self._poll_s = poll_s
        self._leads = False
        self._tried = asyncio.Event()
        """Set once the first connection has been opened and has tried to lead, or has failed."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and return once it is known whether this server leads."""
        self._task = asyncio.create_task(self._run())
        await self._tried.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    await self._listen(connection)
            except Exception as error:  # noqa: BLE001 - this server must hear its peers again
                log.warning("peers not heard", cause=type(error).__name__, retry_s=RETRY_S)
            finally:
                self._lead(False)
                self._tried.set()
            await asyncio.sleep(RETRY_S)

    async def _connect(self) -> "AsyncConnection[Any]":
        from psycopg import AsyncConnection  # an optional dependency

        _, arguments = self._url.get_dialect()().create_connect_args(self._url)
        return await AsyncConnection.connect(
            **{**arguments, **connect_args(self._url, self._application)}, autocommit=True
        )

    async def _listen(self, connection: "AsyncConnection[Any]") -> None:
        await connection.execute(f"LISTEN {CHANNEL}".encode())
        self._on_connect()
        while True:
            cursor = await connection.execute(LED if self._leads else LEAD)
            row = await cursor.fetchone()
            self._lead(row is not None and row[0])
            self._tried.set()
            async for notification in connection.notifies(timeout=self._poll_s):
                self._on_message(notification.payload)

    def _lead(self, leads: bool) -> None:
        if leads != self._leads:
            self._leads = leads
            self._on_lead(leads)
