"""Health and status of the server."""

import time
from dataclasses import dataclass

from dia_server.db.engine import Database
from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.cluster.types import ClusterState as ClusterState
from dia_server.engine.readiness import State as State
from dia_server.engine.readiness import require_ready, state_of
from dia_server.engine.types import EngineName as EngineName
from dia_server.errors import ModelNotLoaded
from dia_server.services.server.shutdown import Shutdown


@dataclass(frozen=True, slots=True)
class Status:
    status: State
    model_loaded: bool
    gpu_count: int
    worker_count: int
    active_jobs: int
    uptime_s: float
    engine: EngineName
    loading: int
    max_characters: int
    """Maximum characters of a request's text."""
    error: str | None
    may_load: bool
    """Whether `load` would retry: loading has failed, and the server is not shutting down."""
    notes: tuple[str, ...]
    cluster: ClusterState | None


class StatusService:
    def __init__(
        self,
        engine: AnyEngine,
        database: Database,
        shutdown: Shutdown,
        *,
        gpu_count: int,
        max_characters: int,
    ) -> None:
        self._engine = engine
        self._database = database
        self._shutdown = shutdown
        self._gpu_count = gpu_count
        self._max_characters = max_characters
        self._started = time.monotonic()

    def status(self) -> Status:
        engine = self._engine
        return Status(
            status=state_of(engine),
            model_loaded=engine.ready,
            gpu_count=self._gpu_count,
            worker_count=engine.worker_count,
            active_jobs=engine.active,
            uptime_s=time.monotonic() - self._started,
            engine=engine.name,
            loading=int(engine.loaded * 100),
            max_characters=self._max_characters,
            error=None if engine.error is None else str(engine.error),
            may_load=engine.error is not None and not self._shutdown.begun,
            notes=engine.notes,
            cluster=engine.cluster,
        )

    def load(self) -> None:
        """Retry loading the model if it has failed; raises ModelNotLoaded during shutdown."""
        self._require_service()
        self._engine.load()

    async def require_ready(self) -> None:
        """Raise an error unless the server can generate speech and store jobs.

        Raises ModelNotLoaded if the model is not loaded or the server is shutting down, StorageUnavailable if
        the database is not writable.
        """
        self._require_service()
        require_ready(self._engine)
        await self._database.require_writable()

    def _require_service(self) -> None:
        if self._shutdown.begun:
            raise ModelNotLoaded("The server is shutting down")
