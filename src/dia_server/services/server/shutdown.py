"""Graceful shutdown: running work gets `timeout_s` seconds to finish.

Then the engine stops: requests fail, and jobs from the queue are set back to pending for the next start.
"""

import asyncio

import structlog

from dia_server.engine.any_engine import AnyEngine
from dia_server.services.jobs.worker import JobWorker

log = structlog.get_logger()


class Shutdown:
    """Call `begin` on the shutdown signal. Accepted requests continue until the deadline."""

    def __init__(self, timeout_s: float, engine: AnyEngine, worker: JobWorker) -> None:
        self._timeout_s = timeout_s
        self._engine = engine
        self._worker = worker
        self._deadline: float | None = None
        self._stop_task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        return self._deadline is not None

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline for running work; 0 before the shutdown has begun."""
        if self._deadline is None:
            return 0.0
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def begin(self) -> None:
        """Stop claiming jobs now, and the engine at the deadline; returns at once."""
        if self.begun:
            return
        self._deadline = asyncio.get_running_loop().time() + self._timeout_s
        log.info("shutting down", running=self._engine.active, timeout_s=self._timeout_s)
        self._worker.pause()
        self._stop_task = asyncio.create_task(self._stop_in_time())

    async def close(self) -> None:
        """Cancel the task that stops the engine at the deadline; `JobWorker.stop` ends jobs instead."""
        if self._stop_task is not None:
            self._stop_task.cancel()
            await asyncio.gather(self._stop_task, return_exceptions=True)

    async def _stop_in_time(self) -> None:
        await asyncio.sleep(self.remaining_s)
        if self._engine.active:
            log.warning("shutdown deadline reached: stopping running work", running=self._engine.active)
        await asyncio.to_thread(self._engine.stop)
