"""Statistics: totals since the database was created, and current resource usage."""

import asyncio
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.db.models import Totals
from dia_server.services.jobs.totals import TOTALS_ID
from dia_server.services.server.resources import ResourceMonitor, Resources


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
        """Share of successful requests in percent; 100 if there were none."""
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
