"""Locks between servers on one PostgreSQL; on SQLite, which has one server, they do nothing."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession


async def lock_between_servers(session: AsyncSession, name: str) -> None:
    """Wait until no other transaction holds the lock `name`, and hold it until this transaction ends."""
    if session.get_bind().dialect.name == "postgresql":
        key = func.hashtextextended(f"dia-server {name}", 0)
        await session.execute(select(func.pg_advisory_xact_lock(key)))
