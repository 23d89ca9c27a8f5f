"""Membership: this server's row in the table of servers, and the lease by which its peers know it is alive.

A job or candidate belongs to the server that its `owner` names. If that server has no row, the work is
orphaned, and another server takes it over. On PostgreSQL, a server deletes its row when it stops, and at each
heartbeat those of servers whose lease has ended. SQLite has one server, which needs no row: at its start, all
unfinished work is orphaned.
"""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import ColumnElement, CursorResult, delete, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from dia_server.db.engine import Database
from dia_server.db.models import Server
from dia_server.errors import StorageUnavailable

log = structlog.get_logger()

HEARTBEAT_S = 10.0
"""Seconds between renewals of the lease."""
LEASE_S = 30.0
"""Seconds after a renewal at which the server counts as dead."""
END_CONNECTIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = :name AND datname = current_database() AND usename = current_user"
)


class Membership:
    def __init__(
        self,
        database: Database,
        *,
        lease_s: float = LEASE_S,
        on_new_id: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_new_id` is called with `server_id` as this server joins, and when it changes."""
        self._database = database
        self._lease_s = lease_s
        self._on_new_id = on_new_id
        self.server_id = str(uuid4())
        """UUID of this server; another one after its peers have taken over its work."""

    async def join(self) -> None:
        """Add this server's row."""
        if self._database.shared:
            async with self._database.sessions.begin() as session:
                await self._add(session, self.server_id)
        self._on_new_id(self.server_id)

    async def renew(self) -> bool:
        """Renew the lease; return False if peers have taken over, and then join with a new id."""
        async with self._database.sessions.begin() as session:
            renewed = await session.execute(
                update(Server).where(Server.server_id == self.server_id).values(lease_until=self._end())
            )
            assert isinstance(renewed, CursorResult)
            if renewed.rowcount:
                return True
        log.warning("a peer has taken over this server's work", lease_s=self._lease_s)
        new_id = str(uuid4())
        async with self._database.sessions.begin() as session:
            await self._add(session, new_id)
        self.server_id = new_id
        self._on_new_id(new_id)
        return False

    async def require_row(self, session: AsyncSession) -> None:
        """Keep this server's row until the transaction of `session` ends, so that what it claims is its own.

        Raises StorageUnavailable if peers have taken over this server's work; the next heartbeat joins anew.
        """
        if not self._database.shared:
            return
        own = select(Server.server_id).where(Server.server_id == self.server_id)
        if await session.scalar(own.with_for_update(read=True, key_share=True)) is None:
            raise StorageUnavailable(
                "This server was cut off from the database and is joining it again", retry_after=1
            )

    async def bury(self) -> None:
        """End the connections of servers whose lease has ended, and delete their rows; PostgreSQL only.

        A server that stands still, and is not dead, would keep its locks: the leader's, and those of rows.
        """
        ended = Server.lease_until < func.now()
        async with self._database.sessions.begin() as session:
            for application in (await session.scalars(select(Server.application).where(ended))).all():
                if application != self._database.application:
                    await session.execute(END_CONNECTIONS, {"name": application})
            for row in await session.execute(delete(Server).where(ended).returning(Server.host, Server.pid)):
                log.warning("a server is gone", host=row.host, pid=row.pid)

    async def leave(self) -> None:
        """Delete this server's row; if the database is away, the end of the lease does it."""
        if not self._database.shared:
            return
        try:
            async with self._database.sessions.begin() as session:
                await session.execute(delete(Server).where(Server.server_id == self.server_id))
        except StorageUnavailable as error:
            log.warning("server not signed off", error=str(error))

    def orphaned(self, owner: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
        """Return the condition that no running server is the `owner` of a row."""
        if not self._database.shared:
            return or_(owner.is_(None), owner != self.server_id)
        return or_(owner.is_(None), owner.not_in(select(Server.server_id)))

    def crashed(self, owner: InstrumentedAttribute[str | None], server_id: str) -> ColumnElement[bool]:
        """Return the condition that a server that has crashed is the `owner` of a row.

        On SQLite all servers before this one have ended, and platforms without fork do not tell the id.
        """
        own = owner == server_id
        return own if self._database.shared else or_(own, self.orphaned(owner))

    async def _add(self, session: AsyncSession, server_id: str) -> None:
        session.add(
            Server(
                server_id=server_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                application=self._database.application,
                lease_until=self._end(),
            )
        )
        await session.flush()

    def _end(self) -> Any:
        """Return the end of a lease that begins now, by PostgreSQL's clock."""
        return func.now() + timedelta(seconds=self._lease_s)
