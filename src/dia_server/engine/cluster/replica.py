"""A replica of the Ray Serve deployment: one engine, with one model on one GPU."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from enum import Enum
from uuid import uuid4

from ray import serve, util

from dia_server import __version__
from dia_server.engine.cluster.demand import METRIC, Demand
from dia_server.engine.cluster.recordings import Recordings
from dia_server.engine.cluster.types import ReplicaState, Sign
from dia_server.engine.engine import Engine
from dia_server.engine.types import Chunk, EngineName, Flow, LoadModel, Utterance
from dia_server.errors import ServerError

SIGN_OF_LIFE_S = 1.0
"""Seconds without a chunk after which a replica says that it is alive."""
LOADING_POLL_S = 0.05


class Need(Enum):
    """Answer to an utterance whose recordings the replica does not have."""

    RECORDINGS = 1


@dataclass(frozen=True, slots=True)
class Begun:
    """The replica has taken an utterance."""

    replica_id: str


class EngineReplica:
    """Its methods are called by Ray Serve, on an event loop."""

    async def __init__(self, name: EngineName, load_model: LoadModel, slots: int, columns: int) -> None:  # type: ignore[misc]
        """Load the model, whose slots have `columns` decoder columns.

        Raises the error of loading, upon which Ray Serve tries again, perhaps elsewhere.
        """
        self._columns = columns
        self._recordings = Recordings()
        self._demand = Demand()
        self._running: Counter[str] = Counter()
        """Number of utterances that run or wait, by server."""
        self._engine = Engine(name, load_model, max_waiting=slots)
        self._engine.start()
        while not self._engine.ready:
            self.check_health()
            await asyncio.sleep(LOADING_POLL_S)

    async def speak(
        self, utterance: Utterance, *, server: str, avoid: Collection[str]
    ) -> AsyncIterator[Sign | Begun | Need]:
        """Generate an utterance of the server with the id `server`; cancelling the call releases its slot.

        Begun comes first. Failures are yielded, because Ray would wrap a raised one; but if the engine has
        stopped, there is no last chunk, so that the server asks another replica. If recordings are missing,
        only Need.RECORDINGS is yielded. `avoid` is for the router.
        """
        if (complete := self._recordings.complete(utterance)) is None:
            yield Need.RECORDINGS
            return
        self._running[server] += 1
        try:
            yield Begun(_replica_id())
            # the server decides who gets a slot; as a client of its own, no utterance waits for others here
            async with self._engine.submit(replace(complete, flow=Flow(uuid4().hex))) as generation:
                while True:
                    coming = asyncio.ensure_future(anext(generation))
                    try:
                        while not (await asyncio.wait([coming], timeout=SIGN_OF_LIFE_S))[0]:
                            yield None
                    finally:
                        coming.cancel()  # does nothing if it is done
                    chunk: Chunk = coming.result()
                    yield chunk
                    if chunk.done:
                        return
        except ServerError as error:
            if self._engine.error is None:
                yield error
        finally:
            self._running[server] -= 1

    async def state(self, server: str, demand: int) -> ReplicaState:
        """Return the state; `demand` utterances of the server with the id `server` run or wait.

        Raises the error of an engine that has stopped: it has no slots for the server.
        """
        self.check_health()
        self._demand.put(server, demand)
        engine = self._engine
        return ReplicaState(
            replica_id=_replica_id(),
            host=util.get_node_ip_address(),
            version=__version__,
            name=engine.name,
            notes=engine.notes,
            slots=engine.slots,
            columns=self._columns,
            busy=engine.busy,
            others=self._running.total() - self._running[server],
            work=engine.work,
        )

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what Ray Serve's autoscaler is told: the share of the slots that the demand would fill."""
        return {METRIC: self._demand.total / self._engine.slots}

    def check_health(self) -> None:
        """Raise the engine's error; Ray Serve then replaces the replica."""
        if self._engine.error is not None:
            raise self._engine.error


def _replica_id() -> str:
    name: str = serve.get_replica_context().replica_id.unique_id
    return name
