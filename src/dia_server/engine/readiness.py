"""Checks whether an engine is ready; used by requests, jobs, probes and /health."""

from typing import Literal, Protocol

from dia_server.engine.types import EngineName
from dia_server.errors import ModelNotLoaded

LOADING_RETRY_S = 5
"""Retry-After, in seconds, while the model is loading or after it could not be loaded again."""

State = Literal["healthy", "loading", "unhealthy"]


class Loadable(Protocol):
    """Attributes of `Engine` and `EnginePool` that tell their readiness."""

    @property
    def name(self) -> EngineName: ...
    @property
    def ready(self) -> bool: ...
    @property
    def loaded(self) -> float: ...
    @property
    def error(self) -> Exception | None: ...


def state_of(engine: Loadable) -> State:
    """Return "unhealthy" if loading failed or the engine stopped, "healthy" if ready, else "loading"."""
    if engine.error is not None:
        return "unhealthy"
    return "healthy" if engine.ready else "loading"


def require_loadable(engine: Loadable) -> None:
    """Raise ModelNotLoaded if loading has failed or the engine stopped, but not while it is loading."""
    if (error := engine.error) is not None:
        raise ModelNotLoaded(
            f"The {engine.name} engine could not be loaded: {error} (POST /model/load tries again)"
        )


def require_ready(engine: Loadable) -> None:
    """Raise ModelNotLoaded unless the engine accepts utterances."""
    require_loadable(engine)
    if not engine.ready:
        raise ModelNotLoaded(
            f"The {engine.name} engine is still loading ({engine.loaded:.0%})", retry_after=LOADING_RETRY_S
        )
