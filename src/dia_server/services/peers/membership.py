"""Membership: this server's row in the table of servers, and the lease by which its peers know it is alive.

A job or candidate belongs to the server that its `owner` names. If that server has no row, the work is
orphaned, and another server takes it over. SQLite has one server: at its start, all other rows are deleted,
and its row has no lease to renew. On PostgreSQL, a server deletes its row when it stops, and those of servers
whose lease has ended at every heartbeat.
"""

import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import ColumnElement, CursorResult, delete, func, or_, select, text, true, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from dia_server.db.engine import Database
from dia_server.db.listener import application_name
from dia_server.db.models import Server, now
from dia_server.errors import StorageUnavailable

log = structlog.get_logger()

HEARTBEAT_S = 10.0
"""Seconds between renewals of the lease."""
LEASE_S = 30.0
"""Seconds after a renewal at which the server counts as dead."""

END_CONNECTIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE starts_with(application_name, :name) AND datname = current_database() AND usename = current_user"
)

Process = tuple[str, int]
"""Host name and process id of an HTTP worker."""


class Membership:
    def __init__(self, database: Database, *, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._lease_s = lease_s
        self.server_id = str(uuid4())
        """UUID of this server; a new one after a peer has taken over its work."""

    async def join(self, crashed: Mapping[Process, str] = MappingProxyType({})) -> Mapping[str, str]:
        """Add this server's row; delete those of `crashed` processes, and on SQLite those of all others.

        `crashed` maps processes to the causes of their crashes. Returns the causes by server id.
        """
        causes = {}
        async with self._database.sessions.begin() as session:
            for (host, pid), cause in crashed.items():
                process = Server.host == host, Server.pid == pid
                for server_id in await session.scalars(select(Server.server_id).where(*process)):
                    causes[server_id] = cause
            ended = Server.server_id.in_(causes) if self._database.shared else true()
            await session.execute(delete(Server).where(ended))
            await self._add(session)
        return causes

    async def renew(self) -> bool:
        """Renew the lease. If a peer has taken over this server's work, join with a new id; return False."""
        async with self._database.sessions.begin() as session:
            renewed = await session.execute(
                update(Server).where(Server.server_id == self.server_id).values(lease_until=self._end())
            )
            assert isinstance(renewed, CursorResult)
            if renewed.rowcount:
                return True
            log.warning("a peer has taken over this server's work", lease_s=self._lease_s)
            self.server_id = str(uuid4())
            await self._add(session)
        return False

    async def bury(self) -> None:
        """End the connections of servers whose lease has ended, and delete their rows; PostgreSQL only.

        A server that is stopped, not dead, would keep the leader's lock, and those of its open transactions.
        """
        ended = Server.lease_until < func.now()
        async with self._database.sessions.begin() as session:
            for server_id in (await session.scalars(select(Server.server_id).where(ended))).all():
                await session.execute(END_CONNECTIONS, {"name": application_name(server_id)})
            for row in await session.execute(delete(Server).where(ended).returning(Server.host, Server.pid)):
                log.warning("a server is gone", host=row.host, pid=row.pid)

    async def leave(self) -> None:
        """Delete this server's row; if the database is away, the end of the lease does it."""
        try:
            async with self._database.sessions.begin() as session:
                await session.execute(delete(Server).where(Server.server_id == self.server_id))
        except StorageUnavailable as error:
            log.warning("server not signed off", error=str(error))

    def owns(self, owner: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
        """Return the condition that this server is the `owner` of a row."""
        return owner == self.server_id

    def orphaned(self, owner: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
        """Return the condition that no running server is the `owner` of a row."""
        return or_(owner.is_(None), owner.not_in(select(Server.server_id)))

    async def _add(self, session: AsyncSession) -> None:
        session.add(
            Server(
                server_id=self.server_id, host=socket.gethostname(), pid=os.getpid(), lease_until=self._end()
            )
        )
        await session.flush()

    def _end(self) -> Any:
        """Return the end of a lease that begins now, by the database's clock where there are several."""
        lease = timedelta(seconds=self._lease_s)
        return func.now() + lease if self._database.shared else now() + lease
