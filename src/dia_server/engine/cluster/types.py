"""What crosses between an API process and the replicas of its cluster."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from dia_server.engine.types import Chunk, EngineName, Utterance, Work
from dia_server.errors import ServerError

Sign = Chunk | ServerError | None
"""What a replica sends of an utterance: a chunk, the failure that ends it, or a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaState:
    replica_id: str
    host: str
    """Address of the machine."""
    version: str
    """Version of dia-server."""
    name: EngineName
    notes: tuple[str, ...]
    slots: int
    columns: int
    """Decoder columns of a slot."""
    busy: int
    """Number of utterances that run."""
    others: int
    """Number of utterances of other servers that run or wait."""
    work: Work


@dataclass(frozen=True, slots=True)
class ClusterState:
    replicas: Sequence[ReplicaState]
    failovers: int
    """Number of utterances of this server whose replica was lost."""


@dataclass(frozen=True, slots=True)
class ReplicaCount:
    """Number of replicas of a cluster: between `least` and `most`, by demand."""

    least: int
    most: int


class ReplicaLost(Exception):
    """The replica that generated an utterance is gone, or says nothing any more."""


class Replicas(Protocol):
    """The replicas of a cluster. Its methods are called on the event loop."""

    async def connect(self) -> None:
        """Connect to the cluster; raises ModelNotLoaded with the cause if that fails."""

    async def states(self, demand: int) -> Sequence[ReplicaState]:
        """Return the states of the replicas that answer; raises ModelNotLoaded if the cluster does not.

        The replicas learn that `demand` utterances of this server run or wait.
        """
        ...

    def speak(self, utterance: Utterance) -> AbstractAsyncContextManager[AsyncIterator[Sign]]:
        """Generate an utterance on a replica with a free slot; leaving the context cancels it.

        The iterator raises ReplicaLost.
        """
        ...

    def close(self) -> None:
        """Disconnect; blocks."""
