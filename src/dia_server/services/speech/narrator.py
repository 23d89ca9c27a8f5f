"""A text as the engine makes it: segments side by side in the batch, put out in order as one recording."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace

import numpy as np
import structlog

from dia_server.audio.guard import judge
from dia_server.audio.join import Join
from dia_server.engine.generation import Generation
from dia_server.engine.pool import AnyEngine
from dia_server.engine.types import SAMPLE_RATE, Chunk, Frames, Samples, Utterance, VoicePrompt
from dia_server.errors import Overloaded, ServerError
from dia_server.services.speech.segment import Segment
from dia_server.services.speech.usage import UsageMeter
from dia_server.text.budget import encoded_length
from dia_server.text.plan import ANCHOR, Plan, PlannedUtterance

log = structlog.get_logger()

ExceedsLimit = Callable[[Samples, str], Awaitable[bool]]
"""Whether what is said in the samples is not the text."""

UNLIMITED_S = float("inf")
NOTHING = np.zeros(SAMPLE_RATE // 4, np.float32)
"""What a text sounds like that has nothing to pronounce, as a full stop: clients take no empty file."""
EMPTY = NOTHING[:0]

PART = SAMPLE_RATE // 4
"""Samples at most that are put out at once: an MP3 encoder takes 75 ms for a sentence of 2.5 s, and who
listens would wait for all of it."""
AT_ONCE = 2
"""Segments of a text that are begun even where no slot is free: the one that is heard, and the next."""
BUSY_S = 0.2
"""Until a later segment tries again to get into a full queue: its text has been accepted as a whole."""


@dataclass(frozen=True, slots=True)
class Narrated:
    """What is new of the recording; `samples` may be empty."""

    samples: Samples
    progress: float
    """Of the whole recording, 0 to 1; it never falls."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A segment as it was made with one seed."""

    samples: Samples
    frames: Frames | None
    faults: tuple[str, ...]
    seed: int
    tokens: int


class Narrator:
    def __init__(self, engine: AnyEngine, *, retries: int, exceeds_limit: ExceedsLimit | None = None) -> None:
        """`retries` is how often a segment that the guard finds bad is made again with the next seed, after
        which the one with the fewest faults stays; 0 is no guard. `exceeds_limit` is asked too, about what is
        not heard yet."""
        self._engine = engine
        self._retries = retries
        self._exceeds_limit = exceeds_limit

    @property
    def clones(self) -> bool:
        """Whether a voice prompt tells the engine how to sound."""
        return self._engine.name == "dia"

    async def narrate(
        self,
        plan: Plan,
        base: Utterance,
        meter: UsageMeter,
        *,
        speed: float = 1.0,
        live: bool = False,
        background: bool = False,
        ahead_s: float = UNLIMITED_S,
    ) -> AsyncGenerator[Narrated]:
        """Make `plan` with the settings of `base`, and note in `meter` what that takes; close the iterator
        to give every slot back.

        Where somebody listens `live`, the first segment is put out from its first chunk on, and so is judged
        but never made again. Every other segment is put out when it is whole and judged, whenever that is:
        what is made depends on the seed, and not on how fast the engine or the listener was.

        The recording is to be heard at `speed`, and the pauses that the text asks for are made so much
        longer, or shorter, that they last as long as it says.

        Segments are begun while there are free slots, and as long as those that nobody has taken yet are
        estimated at `ahead_s` of speech at most, so that what waits for a slow reader stays small.
        Where the plan is anchored, the first segment's audio is the prompt of the others, behind the voice's
        own if there is one, and they begin when it is whole: one voice throughout. Where it has not become
        what its text says, the next one that can be is taken instead: Dia would say again what it misses.
        """
        planned = deque(plan.utterances)
        prompt = base.prompt
        waiting = self.clones and plan.anchored
        running: deque[Segment] = deque()
        join, done_s = Join(SAMPLE_RATE), 0.0
        whole_s = plan.duration_s(speed) * speed or 1.0  # accents alone are estimated at nothing
        progress = 0.0

        def begin_more() -> None:
            free = self._engine.slots - self._engine.active
            while planned and not (running and waiting):
                begun_s = sum(segment.planned.estimated_s for segment in running)
                if running and begun_s + planned[0].estimated_s > ahead_s:
                    return
                if len(running) >= AT_ONCE and free <= 0:
                    return
                first = len(planned) == len(plan.utterances)
                segment = self._segment(
                    planned.popleft(), replace(base, prompt=prompt), first=first, live=live
                )
                segment.start(self._make(segment, meter, background=background))
                running.append(segment)
                free -= 1

        try:
            begin_more()
            while running:
                segment, frames, sounds = running[0], None, False
                silence_s = segment.planned.pause_s * speed + segment.planned.gap_s
                lead = join.begin(silence_s)
                while (chunk := await segment.next()) is not None:
                    share = (done_s + chunk.progress * segment.planned.estimated_s) / whole_s
                    progress = max(progress, min(1.0, share))
                    samples = np.concatenate([lead, join.push(chunk.samples)])
                    lead = EMPTY
                    meter.tokens += chunk.tokens
                    meter.samples += len(samples)
                    for part in np.split(samples, range(PART, len(samples), PART)):
                        yield Narrated(part, progress)
                    frames, sounds = chunk.frames, sounds or bool(chunk.samples.any())
                    begin_more()
                done_s += silence_s + segment.planned.estimated_s
                if waiting and sounds and segment.whole and _can_lead(segment.planned.text, frames):
                    prompt = _longer(prompt, segment.planned.text, frames)
                    waiting = False
                running.popleft()
                begin_more()
            tail = np.concatenate([join.begin(plan.pause_after_s * speed), join.finish()])
            if not meter.samples + len(tail):
                tail = NOTHING
            meter.samples += len(tail)
            yield Narrated(tail, 1.0)
        finally:
            # all are cancelled before anything is awaited: who leaves may not be given the time to wait
            ending = [task for segment in running if (task := segment.cancel())]
            await asyncio.gather(*ending, return_exceptions=True)

    def _segment(self, planned: PlannedUtterance, base: Utterance, *, first: bool, live: bool) -> Segment:
        """The preview ends by itself; Dia may babble, and gets the plan's limit too."""
        wanted, most = base.max_tokens, planned.max_tokens if self.clones else None
        limit = None if wanted is None or (most is not None and most < wanted) else wanted
        # what the client has cut short itself would only be found bad again and again
        judged = self.clones and self._retries > 0 and limit is None
        utterance = replace(
            base, text=planned.text + planned.ending, max_tokens=most if limit is None else limit
        )
        held = judged and not (first and live)
        return Segment(planned, utterance, first=first, limit=limit, judged=judged, held=held)

    async def _make(self, segment: Segment, meter: UsageMeter, *, background: bool) -> None:
        """Have the engine make `segment`, again while it is bad and nobody has heard of it."""
        best: _Attempt | None = None
        with meter.measure():
            while True:
                try:
                    attempt = await self._attempt(segment, background=background)
                except ServerError:
                    if best is None:
                        raise
                    log.warning("a bad segment could not be made again", exc_info=True)
                    break
                if best is None or len(attempt.faults) < len(best.faults):
                    best = attempt
                if not (segment.held and attempt.faults and segment.retries < self._retries):
                    break
                segment.retries += 1
                meter.retries += 1
                segment.utterance = replace(segment.utterance, seed=(segment.utterance.seed + 1) % 2**32)
        segment.whole = not best.faults and (segment.limit is None or best.tokens < segment.limit)
        if best.faults:
            meter.faults.update(best.faults)
            log.warning(
                "a bad segment stays", faults=best.faults, seed=best.seed, heard_live=not segment.held
            )
        if segment.held:
            segment.put(Chunk(best.samples, tokens=0, progress=1.0, done=True, frames=best.frames))

    async def _attempt(self, segment: Segment, *, background: bool) -> _Attempt:
        """Have the engine make `segment` once; the audio of one that is held is not put out yet."""
        made, frames, tokens = [EMPTY], None, 0
        async with await self._submit(segment, background=background) as generation:
            async for chunk in generation:
                if segment.judged:
                    made.append(chunk.samples)
                frames, tokens = chunk.frames, tokens + chunk.tokens
                segment.put(replace(chunk, samples=EMPTY) if segment.held else chunk)
        samples, seed = np.concatenate(made), segment.utterance.seed
        if not segment.judged:
            return _Attempt(samples, frames, (), seed, tokens)
        verdict = await asyncio.to_thread(judge, samples, SAMPLE_RATE, segment.planned.estimated_s)
        faults: tuple[str, ...] = verdict.faults
        # listening takes seconds, by which what is bad anyway or is heard already would only end later
        listen = segment.held and not faults and self._exceeds_limit
        if listen and await listen(samples, segment.planned.text):
            faults = ("misheard",)
        if faults:
            log.info("segment is bad", faults=faults, seed=seed)
        return _Attempt(samples, frames, faults, seed, tokens)

    async def _submit(self, segment: Segment, *, background: bool) -> Generation:
        """Queue `segment`; only where its text begins with it is a full queue a reason to refuse."""
        while True:
            try:
                return self._engine.submit(segment.utterance, background=background)
            except Overloaded:
                if segment.first and not segment.retries:
                    raise
            await asyncio.sleep(BUSY_S)


def _can_lead(text: str, frames: Frames | None) -> bool:
    """Whether the plan has left room in the other segments for this one as their prompt."""
    return (
        frames is not None and len(frames) <= ANCHOR.max_columns and encoded_length(text) <= ANCHOR.max_bytes
    )


def _longer(prompt: VoicePrompt | None, text: str, frames: Frames | None) -> VoicePrompt:
    """Return what segments sound like that follow one of this text, of which `frames` were made."""
    if prompt is None:
        return VoicePrompt(EMPTY, text, digest="", made=frames)
    return replace(prompt, transcript=f"{prompt.transcript} {text}", made=frames)
