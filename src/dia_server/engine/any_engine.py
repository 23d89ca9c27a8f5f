"""What the server needs of an engine, wherever its models run."""

from collections.abc import Callable
from typing import Protocol

from dia_server.engine.cluster.types import ClusterState
from dia_server.engine.generation import Generation
from dia_server.engine.types import EngineName, Utterance, Work


class AnyEngine(Protocol):
    """An `Engine`, an `EnginePool`, or a `ClusterEngine`. Its methods are called on the event loop."""

    @property
    def name(self) -> EngineName: ...
    @property
    def worker_count(self) -> int:
        """Number of models."""
        ...

    @property
    def ready(self) -> bool:
        """Whether `submit` accepts utterances."""
        ...

    @property
    def loaded(self) -> float:
        """Loaded share of the models, 0 to 1."""
        ...

    @property
    def error(self) -> Exception | None:
        """Error because of which no model can be used; None if there is none."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """One text per part that runs degraded, with cause and remedy."""
        ...

    @property
    def slots(self) -> int:
        """Number of utterances that can run at the same time."""
        ...

    @property
    def active(self) -> int:
        """Number of utterances that run or wait."""
        ...

    @property
    def busy(self) -> int:
        """Number of utterances that run."""
        ...

    @property
    def work(self) -> Work: ...
    @property
    def cluster(self) -> ClusterState | None:
        """State of the cluster whose replicas generate the speech; None if this server does."""
        ...

    def waiting(self, *, background: bool) -> int:
        """Return the number of requests, or of `background` utterances, that wait."""
        ...

    def watch(self, on_end: Callable[[Generation], None]) -> None:
        """Set the callback for the end of each generation submitted later; it runs on the event loop."""

    def start(self) -> None:
        """Begin to load the models."""

    def load(self) -> None:
        """Load again what could not be loaded."""

    def stop(self) -> None:
        """Fail all utterances and close the models; blocks, so call it in a thread."""

    def submit(self, utterance: Utterance, *, background: bool = False) -> Generation:
        """Queue `utterance`; raises ModelNotLoaded or Overloaded."""
        ...
