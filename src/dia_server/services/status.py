"""How the server is."""

import time
from dataclasses import dataclass
from typing import Literal

from dia_server.engine.engine import LOADING_RETRY_S
from dia_server.engine.pool import AnyEngine
from dia_server.engine.types import EngineName as EngineName
from dia_server.errors import ModelNotLoaded
from dia_server.services.shutdown import Shutdown


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
    notes: tuple[str, ...]


class StatusService:
    def __init__(self, engine: AnyEngine, shutdown: Shutdown, gpu_count: int) -> None:
        self._engine = engine
        self._shutdown = shutdown
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
            notes=engine.notes,
        )

    def require_ready(self) -> None:
        """Raise ModelNotLoaded, with the cause, where speech can't be made now."""
        if self._shutdown.begun:
            raise ModelNotLoaded("The server is shutting down")
        if (error := self._engine.error) is not None:
            raise ModelNotLoaded(f"The {self._engine.name} engine could not be loaded: {error}")
        if not self._engine.ready:
            loaded = f"{self._engine.loaded:.0%}"
            raise ModelNotLoaded(
                f"The {self._engine.name} engine is still loading ({loaded})", retry_after=LOADING_RETRY_S
            )
