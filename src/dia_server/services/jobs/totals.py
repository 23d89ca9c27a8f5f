"""Totals of finished requests since the database was created."""

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from dia_server.db.models import Totals
from dia_server.services.speech.usage import Usage

TOTALS_ID = 1
"""Primary key of the only row."""


async def count(session: AsyncSession, usage: Usage | None) -> None:
    """Count a request in the transaction of `session`: add its `usage`, or a failure if that is None."""
    row = update(Totals).where(Totals.id == TOTALS_ID)
    if usage is None:
        await session.execute(row.values(failed=Totals.failed + 1))
        return
    await session.execute(
        row.values(
            successful=Totals.successful + 1,
            generation_s=Totals.generation_s + usage.generation_s,
            tokens=Totals.tokens + usage.tokens,
            audio_s=Totals.audio_s + usage.audio_s,
        )
    )
