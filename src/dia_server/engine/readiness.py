"""Readiness of an engine, as used by requests, jobs, probes and /health."""

from typing import Literal, Protocol

from dia_server.engine.types import EngineName
from dia_server.errors import ModelNotLoaded

LOADING_RETRY_S = 5
"""Seconds that clients wait before a retry while the model is loading."""

State = Literal["healthy", "loading", "unhealthy"]


class Loadable(Protocol):
    """The state that `Engine` and `EnginePool` share."""

    @property
    def name(self) -> EngineName: ...
    @property
    def ready(self) -> bool: ...
    @property
    def loaded(self) -> float: ...
    @property
    def error(self) -> Exception | None: ...


def state_of(engine: Loadable) -> State:
    """Return "unhealthy" after a failed load, else "healthy" or "loading"."""
    if engine.error is not None:
        return "unhealthy"
    return "healthy" if engine.ready else "loading"


def require_loadable(engine: Loadable) -> None:
    """Raise ModelNotLoaded if loading has failed; a model that is still loading passes."""
    if (error := engine.error) is not None:
        raise ModelNotLoaded(
            f"The {engine.name} engine could not be loaded: {error} (POST /model/load tries again)"
        )


def require_ready(engine: Loadable) -> None:
    """Raise ModelNotLoaded if loading has failed or is not finished."""
    require_loadable(engine)
    if not engine.ready:
        raise ModelNotLoaded(
            f"The {engine.name} engine is still loading ({engine.loaded:.0%})", retry_after=LOADING_RETRY_S
        )
