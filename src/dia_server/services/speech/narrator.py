"""Generates segments on the engine; the guard judges them, and faulty ones are retried."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import structlog

from dia_server.audio.guard import judge
from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.generation import Generation
from dia_server.engine.types import Chunk, Frames, Samples, Utterance
from dia_server.errors import EngineLost, ModelNotLoaded, Overloaded, ServerError
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.segment import Segment
from dia_server.services.speech.timestamps import PlacedWord, Timing
from dia_server.services.speech.usage import UsageMeter
from dia_server.services.speech.word_places import WordPlaces, reported
from dia_server.text.plan import PlannedUtterance
from dia_server.units import SAMPLE_RATE

log = structlog.get_logger()

ExceedsLimit = Callable[[Samples, str], Awaitable[bool]]
"""Returns whether the word error rate of the samples, compared with the text, exceeds a limit."""

AHEAD_S = 40.0
"""Maximum seconds (estimated) of speech generated ahead of a live request's client: 7 MB of samples."""
BUSY_S = 0.2
"""Seconds between attempts to queue a segment of an accepted request while the engine's queue is full."""
LOST_ENGINES = 2
"""Maximum engines of a cluster that may be lost with a held segment before it fails."""
EMPTY = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Result of generating a text once, with one seed."""

    samples: Samples
    frames: Frames | None
    faults: tuple[str, ...]
    seed: int
    tokens: int
    words: Mapping[int, int] = field(default_factory=dict)
    """Index in the samples of the words that the engine has reported, by their index in the text."""


class Narrator:
    """Generates segments; one instance serves all requests."""

    def __init__(
        self,
        engine: AnyEngine,
        *,
        retries: int,
        exceeds_limit: ExceedsLimit | None = None,
        word_places: WordPlaces | None = None,
        ahead_s: float = AHEAD_S,
    ) -> None:
        """`retries` is the maximum number of retries of a faulty segment; 0 turns the guard off.

        The attempt with the fewest faults is kept. `exceeds_limit` checks the words of segments that are held
        back until they are judged; None turns that check off. `word_places` places words within the segments
        of Dia; None if no request asks for it.
        """
        self._engine = engine
        self._retries = retries
        self._exceeds_limit = exceeds_limit
        self._word_places = word_places
        self.ahead_s = ahead_s

    @property
    def clones(self) -> bool:
        """Whether the engine clones the voice of an audio prompt."""
        return self._engine.name == "dia"

    @property
    def free_slots(self) -> int:
        """Number of free slots minus waiting utterances; may be negative."""
        return self._engine.slots - self._engine.active

    def segment(
        self,
        planned: PlannedUtterance,
        base: Utterance,
        delivery: Delivery,
        *,
        first: bool,
        timing: Timing | None = None,
    ) -> Segment:
        """Return a segment with the voice and sampling parameters of `base`.

        `base.max_tokens` is the client's limit of decode steps. With Dia, which may babble, the plan's limit
        applies if it is lower or the client has set none; the preview engine ignores the plan's limit.
        """
        wanted, most = base.max_tokens, planned.max_tokens if self.clones else None
        limit = None if wanted is None or (most is not None and most < wanted) else wanted
        utterance = replace(
            base, text=planned.text + planned.ending, max_tokens=most if limit is None else limit
        )
        # do not judge a segment that the client's limit may cut off: a retry would be cut off there too
        judged = self.clones and self._retries > 0 and limit is None
        return Segment(planned, utterance, delivery, first=first, limit=limit, judged=judged, timing=timing)

    async def require_timing(self, timing: Timing) -> None:
        """Raise WhisperNotAvailable if the timestamps cannot be found."""
        if self.clones and self._word_places is not None:
            await self._word_places.require(timing)

    async def attempt(self, planned: PlannedUtterance, base: Utterance, delivery: Delivery) -> Attempt:
        """Generate `planned` once, with the voice and sampling parameters of `base`, and judge it."""
        utterance = replace(base, text=planned.text + planned.ending, max_tokens=planned.max_tokens)
        segment = Segment(planned, utterance, delivery, first=True, limit=None, judged=True)
        return await self._attempt(segment)

    async def generate(self, segment: Segment, meter: UsageMeter) -> None:
        """Generate `segment` and pass its chunks to `segment.put`.

        If it is held and faulty, retries it with the next seed, up to the maximum number of retries, and puts
        the attempt with the fewest faults.
        """
        with meter.measure():
            best = attempt = await self._attempt(segment)
            while segment.held and attempt.faults and segment.retries < self._retries:
                segment.retry()
                meter.retries += 1
                try:
                    attempt = await self._attempt(segment)
                except ServerError:
                    log.warning("faulty segment not retried", exc_info=True)
                    break
                best = min(best, attempt, key=lambda one: len(one.faults))
        segment.whole = not best.faults and (segment.limit is None or best.tokens < segment.limit)
        if best.faults:
            meter.faults.update(best.faults)
            log.warning("keeping faulty segment", faults=best.faults, seed=best.seed, sent=not segment.held)
        if segment.timing is not None:
            segment.placed = await self._place(segment, best, segment.timing)
        if segment.held:
            segment.put(Chunk(best.samples, tokens=0, progress=1.0, done=True, frames=best.frames))

    async def _place(self, segment: Segment, attempt: Attempt, timing: Timing) -> Sequence[PlacedWord]:
        text = segment.planned.text
        if not self.clones:
            return await reported(attempt.samples, text, attempt.words)
        assert self._word_places is not None
        return await self._word_places.heard(attempt.samples, text, timing)

    async def _attempt(self, segment: Segment) -> Attempt:
        """Generate and judge `segment`; if its engine is lost while it is held, another one starts anew."""
        for _ in range(LOST_ENGINES):
            try:
                return await self._try(segment)
            except EngineLost as error:
                if not segment.held:
                    raise
                log.warning("segment generated anew", cause=str(error))
        return await self._try(segment)

    async def _try(self, segment: Segment) -> Attempt:
        """Generate and judge `segment` once. Puts each chunk at once, without its samples if it is held."""
        parts, frames, tokens = [EMPTY], None, 0
        words: dict[int, int] = {}
        async with await self._submit(segment) as generation:
            async for chunk in generation:
                if segment.judged or segment.timing:
                    parts.append(chunk.samples)
                words.update((word.character, word.sample) for word in chunk.words)
                frames, tokens = chunk.frames, tokens + chunk.tokens
                segment.put(replace(chunk, samples=EMPTY) if segment.held else chunk)
        samples = np.concatenate(parts)
        faults = await self._judge(segment, samples) if segment.judged else ()
        return Attempt(samples, frames, faults, segment.utterance.seed, tokens, words)

    async def _judge(self, segment: Segment, samples: Samples) -> tuple[str, ...]:
        """Return the names of the faults in `samples`, an attempt at `segment`."""
        verdict = await asyncio.to_thread(judge, samples, SAMPLE_RATE, segment.planned.estimated_s)
        faults: tuple[str, ...] = verdict.faults
        # Whisper takes seconds: skipped if the attempt is faulty anyway or cannot be retried
        check = segment.held and not faults and self._exceeds_limit
        if check and await check(samples, segment.planned.text):
            faults = ("misheard",)
        if faults:
            log.info("faulty segment", faults=faults, seed=segment.utterance.seed)
        return faults

    async def _submit(self, segment: Segment) -> Generation:
        """Queue `segment`; wait while the queue is full.

        Raises Overloaded instead for a text's first segment, unless an attempt at it was accepted before.
        """
        while True:
            try:
                generation = self._engine.submit(segment.utterance, background=segment.background)
            except (ModelNotLoaded, Overloaded) as error:
                error.nothing_begun = segment.first and not segment.accepted
                if error.nothing_begun or isinstance(error, ModelNotLoaded):
                    raise
            else:
                segment.accepted = True
                return generation
            await asyncio.sleep(BUSY_S)
