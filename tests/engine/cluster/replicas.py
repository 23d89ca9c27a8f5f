"""Replicas of a cluster in this process: they make noise by seed, and have faults on demand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from dia_server import __version__
from dia_server.engine.cluster.types import ReplicaLost, ReplicaState, Sign
from dia_server.engine.types import Chunk, Utterance, Work
from dia_server.errors import ModelNotLoaded

CHUNKS = 6
"""Chunks of each utterance."""


def audio(utterance: Utterance) -> list[Chunk]:
    """Return the chunks of an utterance, which depend on its seed."""
    random = np.random.default_rng(utterance.seed)
    return [
        Chunk(
            random.random(100 + 10 * n, dtype=np.float32),
            tokens=n,
            progress=(n + 1) / CHUNKS,
            done=n + 1 == CHUNKS,
        )
        for n in range(CHUNKS)
    ]


@dataclass
class FakeReplicas:
    """`faults` is used up by the next utterances: a function of the number of chunks sent so far."""

    slots: int = 2
    version: str = __version__
    columns: int = 3072
    away: bool = False
    replaced: bool = False
    """Whether there is no replica at the moment."""
    hold: asyncio.Event | None = None
    """If set, every utterance waits for it before its second chunk."""
    faults: list["Fault"] = field(default_factory=list)
    others: int = 0
    """Utterances of other servers."""
    running: list[Utterance] = field(default_factory=list)
    begun: list[Utterance] = field(default_factory=list)
    most: int = 0
    """Maximum number of utterances that ran at the same time."""
    polls: int = 0
    demand: int = 0
    """Last number of running and waiting utterances that the engine has told."""
    closed: bool = False
    odd_polls: int = 0
    """Number of next polls that raise an error which no one has foreseen."""
    ending: asyncio.Event | None = None
    """If set, every response waits for it after the last chunk, before it ends by itself."""
    ended: int = 0
    """Number of responses that ended by themselves."""

    async def connect(self) -> None:
        if self.away:
            raise ModelNotLoaded("The cluster cannot be reached")

    async def states(self, demand: int) -> Sequence[ReplicaState]:
        if self.away:
            raise ModelNotLoaded("The cluster does not answer")
        self.polls += 1
        if self.odd_polls:
            self.odd_polls -= 1
            raise ArithmeticError("odd")
        self.demand = demand
        if self.replaced:
            return []
        return [
            ReplicaState(
                replica_id="one",
                host="127.0.0.1",
                version=self.version,
                name="preview",
                notes=(),
                slots=self.slots,
                columns=self.columns,
                busy=len(self.running),
                others=self.others,
                work=Work(),
            )
        ]

    @asynccontextmanager
    async def speak(self, utterance: Utterance) -> AsyncIterator[AsyncIterator[Sign]]:
        self.begun.append(utterance)
        self.running.append(utterance)
        self.most = max(self.most, len(self.running))
        try:
            yield self._signs(utterance, self.faults.pop(0) if self.faults else Fault())
            if self.ending is not None:
                await self.ending.wait()
            self.ended += 1
        finally:
            self.running.remove(utterance)

    def close(self) -> None:
        self.closed = True

    async def _signs(self, utterance: Utterance, fault: "Fault") -> AsyncIterator[Sign]:
        for n, chunk in enumerate(audio(utterance)):
            if n == fault.dies_before:
                raise ReplicaLost("killed")
            if n == fault.freezes_before:
                await asyncio.Event().wait()
            if n == 1 and self.hold is not None:
                await self.hold.wait()
            yield None
            await asyncio.sleep(0)
            yield Chunk(chunk.samples * fault.gain, chunk.tokens, chunk.progress, chunk.done)


@dataclass(frozen=True)
class Fault:
    dies_before: int | None = None
    """Number of the chunk before which the replica is killed."""
    freezes_before: int | None = None
    """Number of the chunk before which it stops to say anything."""
    gain: float = 1.0
    """Factor of the samples; another one than 1 makes different audio."""
