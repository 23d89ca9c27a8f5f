"""How the server is."""

import time
from dataclasses import dataclass
from typing import Literal

from dia_server.engine.pool import AnyEngine
from dia_server.engine.types import EngineName as EngineName


@dataclass(frozen=True, slots=True)
class Status:
    status: Literal["healthy", "loading", "unhealthy"]
    model_loaded: bool
    gpu_count: int
    worker_count: int
    active_jobs: int
    uptime_s: float
    engine: EngineName
    loading: int
    error: str | None


class StatusService:
    def __init__(self, engine: AnyEngine, gpu_count: int) -> None:
        self._engine = engine
        self._gpu_count = gpu_count
        self._started = time.monotonic()

    def status(self) -> Status:
        engine = self._engine
        status: Literal["healthy", "loading", "unhealthy"] = "healthy" if engine.ready else "loading"
        if engine.error is not None:
            status = "unhealthy"
        return Status(
            status=status,
            model_loaded=engine.ready,
            gpu_count=self._gpu_count,
            worker_count=engine.worker_count,
            active_jobs=engine.active,
            uptime_s=time.monotonic() - self._started,
            engine=engine.name,
            loading=int(engine.loaded * 100),
            error=None if engine.error is None else str(engine.error),
        )
