"""A text as the engine makes it: pieces side by side in the batch, put out in order as one recording."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace

import numpy as np
import structlog

from dia_server.audio.guard import judge
from dia_server.audio.join import Join
from dia_server.engine.pool import AnyEngine
from dia_server.engine.types import SAMPLE_RATE, Chunk, Samples, Utterance, VoicePrompt
from dia_server.text.plan import Plan, PlannedUtterance

log = structlog.get_logger()

UNLIMITED_S = float("inf")
NOTHING = np.zeros(SAMPLE_RATE // 4, np.float32)
"""What a text sounds like that has nothing to pronounce, as a full stop: clients take no empty file."""


@dataclass(frozen=True, slots=True)
class Narrated:
    """What is new of the recording; `samples` may be empty."""

    samples: Samples
    tokens: int
    progress: float
    """Of the whole recording, 0 to 1."""


class Piece:
    """A planned utterance while the engine makes it."""

    def __init__(self, planned: PlannedUtterance, utterance: Utterance) -> None:
        self.planned = planned
        self.utterance = utterance
        self.heard = False
        """Whether somebody has begun to take its audio, so that it can't be made again."""
        self.chunks: list[Chunk] = []
        self._taken = 0
        self._changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def samples(self) -> Samples:
        return np.concatenate([chunk.samples for chunk in self.chunks])

    def add(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self._changed.set()

    def restart(self, utterance: Utterance) -> None:
        assert not self.heard
        self.utterance = utterance
        self.chunks.clear()

    async def take(self) -> AsyncIterator[Chunk]:
        """Its chunks as they come; raises what making it raised."""
        assert self.task is not None
        self.heard = True
        self.task.add_done_callback(lambda _: self._changed.set())
        while True:
            while self._taken < len(self.chunks):
                self._taken += 1
                yield self.chunks[self._taken - 1]
            if self.task.done():
                self.task.result()
                return
            self._changed.clear()
            await self._changed.wait()


class Narrator:
    def __init__(self, engine: AnyEngine, *, retries: int) -> None:
        """`retries` is how often a piece that the guard finds bad is made again with the next seed."""
        self._engine = engine
        self._retries = retries

    @property
    def clones(self) -> bool:
        """Whether a voice prompt tells the engine how to sound."""
        return self._engine.name == "dia"

    async def narrate(
        self, plan: Plan, base: Utterance, *, background: bool = False, ahead_s: float = UNLIMITED_S
    ) -> AsyncGenerator[Narrated]:
        """Make `plan` with the settings of `base`; close the iterator to give every slot back.

        Pieces are begun as long as those that nobody has taken yet are estimated at less than `ahead_s`
        of speech, so that what waits for a slow reader stays small. Without a voice prompt the first
        piece's audio is the prompt of the others, which begin when it is whole: one voice throughout.
        """
        planned = deque(plan.utterances)
        anchored = not self.clones or base.prompt is not None or len(planned) == 1
        running: deque[Piece] = deque()
        join, done_s, whole_s, length = Join(SAMPLE_RATE), 0.0, plan.estimated_s, 0

        def begin_more(prompt: VoicePrompt | None) -> None:
            limit = max(1, self._engine.slots) if anchored else 1
            while planned and len(running) < limit:
                if running and sum(piece.planned.estimated_s for piece in running) >= ahead_s:
                    return
                one = planned.popleft()
                piece = Piece(one, self._utterance(one, replace(base, prompt=prompt)))
                piece.task = asyncio.create_task(self._make(piece, background=background))
                running.append(piece)

        prompt = base.prompt
        try:
            begin_more(prompt)
            while running:
                piece = running[0]
                lead = join.begin(piece.planned.pause_before_s)
                async for chunk in piece.take():
                    progress = (done_s + chunk.progress * piece.planned.estimated_s) / whole_s
                    samples = np.concatenate([lead, join.push(chunk.samples)])
                    length += len(samples)
                    yield Narrated(samples, chunk.tokens, progress)
                    lead = samples[:0]
                done_s += piece.planned.pause_before_s + piece.planned.estimated_s
                if not anchored:
                    prompt, anchored = _anchor(piece), True
                running.popleft()
                begin_more(prompt)
            rest = np.concatenate([join.begin(plan.pause_after_s), join.finish()])
            yield Narrated(rest if length + len(rest) else NOTHING, 0, 1.0)
        finally:
            for piece in running:
                assert piece.task is not None
                piece.task.cancel()
            await asyncio.gather(*(piece.task for piece in running if piece.task), return_exceptions=True)

    def _utterance(self, planned: PlannedUtterance, base: Utterance) -> Utterance:
        """The preview ends by itself; Dia may babble, and gets the plan's limit too."""
        limits = [base.max_tokens, planned.max_tokens if self.clones else None]
        most = min((limit for limit in limits if limit is not None), default=None)
        return replace(base, text=planned.text + planned.ending, max_tokens=most)

    async def _make(self, piece: Piece, *, background: bool) -> None:
        """Have the engine make `piece`, again while it is bad and nobody has heard of it."""
        for attempt in range(self._retries + 1):
            async with self._engine.submit(piece.utterance, background=background) as generation:
                async for chunk in generation:
                    piece.add(chunk)
            if not self.clones or piece.heard or attempt == self._retries:
                return
            verdict = await asyncio.to_thread(judge, piece.samples, SAMPLE_RATE, piece.planned.estimated_s)
            if verdict.good or piece.heard:
                return
            log.info("piece made again", faults=verdict.faults, seed=piece.utterance.seed)
            piece.restart(replace(piece.utterance, seed=(piece.utterance.seed + 1) % 2**32))


def _anchor(piece: Piece) -> VoicePrompt:
    samples = piece.samples
    return VoicePrompt(samples, piece.planned.text, hashlib.sha256(samples.tobytes()).hexdigest())
