"""Tells databases apart."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.db.models import VoiceMapping


async def database_id(sessions: async_sessionmaker[AsyncSession]) -> str:
    """Return what a database and its copies have in common: the time at which its tables were made.

    The rows of the built-in voices have this time; they are never deleted.
    """
    async with sessions() as session:
        created: datetime | None = await session.scalar(select(func.min(VoiceMapping.created_at)))
    assert created is not None
    return created.isoformat()
