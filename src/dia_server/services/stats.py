"""What the server has done since its database was made, and how its machine is now."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.db.models import Totals
from dia_server.services.resources import ResourceMonitor, Resources

TOTALS_ID = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a generation took and gave."""

    generation_s: float
    tokens: int
    """Decoder steps."""
    audio_s: float
    retries: int
    """How often the guard had pieces made again."""
    faults: tuple[str, ...] = ()
    """What it found in pieces that were put out all the same, in alphabetical order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    successful: int
    failed: int
    generation_s: float
    tokens: int
    audio_s: float
    resources: Resources

    @property
    def total(self) -> int:
        return self.successful + self.failed

    @property
    def success_rate(self) -> float:
        """Percent; 100 as long as nothing has failed."""
        return 100 * self.successful / self.total if self.total else 100.0

    @property
    def avg_generation_s(self) -> float:
        return self.generation_s / self.successful if self.successful else 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.generation_s if self.generation_s else 0.0


class StatsService:
    def __init__(self, reads: async_sessionmaker[AsyncSession], monitor: ResourceMonitor) -> None:
        self._reads = reads
        self._monitor = monitor

    async def stats(self) -> Stats:
        resources = asyncio.create_task(asyncio.to_thread(self._monitor.measure))
        async with self._reads() as session:
            totals = await session.get_one(Totals, TOTALS_ID)
        return Stats(
            successful=totals.successful,
            failed=totals.failed,
            generation_s=totals.generation_s,
            tokens=totals.tokens,
            audio_s=totals.audio_s,
            resources=await resources,
        )


async def count(session: AsyncSession, made: Made | None) -> None:
    """Add a finished request to the totals, within the transaction of `session`; None is a failed one."""
    row = update(Totals).where(Totals.id == TOTALS_ID)
    if made is None:
        await session.execute(row.values(failed=Totals.failed + 1))
        return
    await session.execute(
        row.values(
            successful=Totals.successful + 1,
            generation_s=Totals.generation_s + made.generation_s,
            tokens=Totals.tokens + made.tokens,
            audio_s=Totals.audio_s + made.audio_s,
        )
    )
