"""Makes the anchors of voices: a short text of our own, spoken by Dia with the voice's seed."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from dia_server.audio.pitch import median_pitch
from dia_server.engine.types import Utterance
from dia_server.errors import GenerationFailed, ModelNotLoaded, Overloaded, ServerError
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.narrator import Attempt, Narrator
from dia_server.services.voices.anchor_file import MAX_FRAMES, AnchorFile, Description
from dia_server.services.voices.anchors import Anchor, AnchorStore
from dia_server.services.voices.service import Voice
from dia_server.text.budget import DELAY
from dia_server.text.plan import PlannedUtterance, plan
from dia_server.text.speakers import Speaker
from dia_server.units import SAMPLE_RATE

log = structlog.get_logger()

SCRIPT = (
    "The morning train was late, so we had coffee and watched the rain. "
    "A young man in a blue jacket asked me how far it was to the bridge."
)
"""Text of an anchor: about nine seconds of plain speech with most sounds of English."""
CANDIDATES = 4
"""Number of candidates in a round on a GPU, side by side in the batch. On a CPU there is one: it takes
minutes."""
RETRY_S = 5.0
"""Seconds between attempts to make the anchors of all voices, while the engine is loading or busy."""

Mode = Literal["auto", "on-demand", "off"]


@dataclass(frozen=True, slots=True)
class _Making:
    task: asyncio.Task[None]
    background: bool


class AnchorMaker:
    """Makes an anchor once for each voice that needs one; concurrent requests wait for the same making."""

    def __init__(
        self,
        narrator: Narrator,
        store: AnchorStore,
        *,
        mode: Mode,
        on_gpu: bool,
        rounds: int,
        model: Callable[[], str],
    ) -> None:
        """`rounds` is the maximum number of rounds of candidates, while all of them are faulty.

        `model` returns the id and revision of the loaded model.
        """
        self._narrator = narrator
        self._store = store
        self._mode = mode
        self._on_gpu = on_gpu
        self._rounds = rounds
        self._model = model
        self._making: dict[str, _Making] = {}
        self._all: asyncio.Task[None] | None = None

    async def model(self) -> str:
        """Return the id and revision of the model."""
        return await asyncio.to_thread(self._model)

    def missing(self, voices: Iterable[Voice]) -> list[Voice]:
        """Return the voices that need an anchor and have none; empty on an engine that does not clone."""
        if self._mode == "off" or not self._narrator.clones:
            return []
        made = self._store.all
        return [voice for voice in voices if not voice.has_recording and voice.voice_id not in made]

    def start(self, voices: Sequence[Voice]) -> None:
        """On a GPU and with the mode `auto`, make the missing anchors of `voices` behind all other work."""
        busy = self._all is not None and not self._all.done()
        if self._mode == "auto" and self._on_gpu and self._narrator.clones and not busy:
            self._all = asyncio.create_task(self._make_all(voices))

    async def stop(self) -> None:
        """Cancel what is being made; requests that wait for it are cancelled too."""
        tasks = [making.task for making in self._making.values()] + ([self._all] if self._all else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ensure(self, voices: Iterable[Voice], *, background: bool = False) -> None:
        """Make the anchors that `voices` lack, side by side.

        Raises ModelNotLoaded, Overloaded or StorageUnavailable; GenerationFailed if no candidate of an anchor
        is audible.
        """
        await asyncio.gather(*(self._ensure(voice, background) for voice in self.missing(voices)))

    async def attempts(
        self, voice: Voice, seeds: Sequence[int], delivery: Delivery, text: str = SCRIPT
    ) -> list[Attempt]:
        """Generate `text` in the voice once for each seed, side by side; each attempt is judged."""
        planned = _planned(text, voice.primary_speaker)
        base = Utterance(planned.text, voice.voice_id, seed=0)
        attempts = (self._narrator.attempt(planned, replace(base, seed=seed), delivery) for seed in seeds)
        tasks = [asyncio.create_task(attempt) for attempt in attempts]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # if one has failed, nobody wants the others
                task.cancel()

    async def keep(self, voice: Voice, attempt: Attempt, text: str = SCRIPT) -> Anchor:
        """Make `attempt` at `text` the anchor of the voice, unless it has got one meanwhile.

        A candidate may have been kept, a library imported, or another server have made one. Raises as
        `AnchorStore.keep`.
        """
        assert attempt.frames is not None
        model = await self.model()
        description = Description(transcript=text, seed=attempt.seed, model=model)
        file = AnchorFile(description, attempt.samples, attempt.frames)
        content = await asyncio.to_thread(file.pack)
        anchor = Anchor(
            voice_id=voice.voice_id,
            digest=hashlib.sha256(content).hexdigest(),
            transcript=text,
            seed=attempt.seed,
            model=model,
            duration=file.duration_s,
            faults=attempt.faults,
            pitch=await asyncio.to_thread(median_pitch, attempt.samples, SAMPLE_RATE),
        )
        await self._store.keep(anchor, content, replace=False)
        return anchor

    async def _ensure(self, voice: Voice, background: bool) -> None:
        making = self._making.get(voice.voice_id)
        if making is not None and making.background and not background:
            making.task.cancel()  # it may wait behind all other work
            making = None
        if making is None:
            task = asyncio.create_task(self._make(voice, background))
            making = self._making[voice.voice_id] = _Making(task, background)
            task.add_done_callback(lambda _: self._forget(voice.voice_id, making))
        # shielded: other requests may wait for the same task
        await asyncio.shield(making.task)

    def _forget(self, voice_id: str, making: _Making) -> None:
        if self._making.get(voice_id) is making:
            del self._making[voice_id]

    async def _make(self, voice: Voice, background: bool) -> None:
        count = CANDIDATES if self._on_gpu else 1
        cost = "" if self._on_gpu else "; on a CPU this takes minutes, once"
        log.info(f"making the anchor of a voice{cost}", voice=voice.voice_id, candidates=count)
        usable: list[Attempt] = []
        for first in range(0, self._rounds * count, count):
            seeds = [(voice.seed + first + n) % 2**32 for n in range(count)]
            try:
                attempts = await self.attempts(voice, seeds, Delivery(background=background))
            except ServerError as error:
                error.nothing_begun = error.nothing_begun and not first
                raise
            usable += filter(can_be_anchor, attempts)
            if any(not attempt.faults for attempt in usable):
                break
        if not usable:
            raise GenerationFailed(
                f"Dia made no audible anchor for voice {voice.voice_id!r}; POST /voices/"
                f"{voice.voice_id}/candidates makes others to choose from"
            )
        best = min(usable, key=lambda attempt: len(attempt.faults))  # the first seed wins a tie
        if best.faults:
            log.warning("keeping a faulty anchor", voice=voice.voice_id, faults=best.faults)
        await self.keep(voice, best)

    async def _make_all(self, voices: Sequence[Voice]) -> None:
        for voice in voices:
            while True:
                try:
                    await self.ensure([voice], background=True)
                except (ModelNotLoaded, Overloaded):
                    await asyncio.sleep(RETRY_S)
                    continue
                except ServerError as error:
                    log.warning("anchor not made", voice=voice.voice_id, cause=str(error))
                except asyncio.CancelledError:
                    if (task := asyncio.current_task()) and task.cancelling():
                        raise
                    # a request makes it at once instead
                break


def can_be_anchor(attempt: Attempt) -> bool:
    """Return whether an attempt is audible and within the limits of an anchor's file."""
    frames = attempt.frames
    return frames is not None and 1 <= len(frames) <= MAX_FRAMES and bool(attempt.samples.any())


def _planned(text: str, speaker: Speaker) -> PlannedUtterance:
    """Return the utterance of an anchor's text, limited to MAX_FRAMES."""
    (planned,) = plan(f"[{speaker}] {text}").utterances
    return replace(planned, max_tokens=min(planned.max_tokens, MAX_FRAMES + DELAY))
