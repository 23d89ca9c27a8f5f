"""Makes candidates of a voice's anchor in the background, behind requests; a person keeps one of them."""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import structlog

from dia_server.audio.pitch import median_pitch
from dia_server.db.models import now
from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.readiness import require_loadable
from dia_server.engine.types import Samples
from dia_server.errors import (
    Conflict,
    GenerationFailed,
    ModelNotLoaded,
    Overloaded,
    ServerError,
    StorageUnavailable,
    nothing_begun,
)
from dia_server.services.config import ConfigService
from dia_server.services.speech.anchor_maker import AnchorMaker, can_be_anchor
from dia_server.services.speech.candidate_request import MAX_COUNT, CandidateRequest, check_text
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.narrator import Attempt
from dia_server.services.voices.anchor_file import AnchorFile, Description, unpack
from dia_server.services.voices.anchors import Anchor, AnchorStore
from dia_server.services.voices.candidates import Candidate, CandidateStore
from dia_server.services.voices.ranking import rank
from dia_server.services.voices.service import Voice, VoiceService
from dia_server.units import SAMPLE_RATE

log = structlog.get_logger()

T = TypeVar("T")

WordErrors = Callable[[Samples, str], Awaitable[float | None]]
"""Returns the word error rate of the samples, compared with the text; None without Whisper."""

MAX_PENDING = 64
"""Maximum pending candidates of all voices."""
RETRY_S = 1.0
"""Seconds between attempts while the engine is loading or busy, or the database is unavailable."""
SWEEP_S = 3600.0
"""Seconds between deletions of expired candidates."""


class CandidateMaker:
    """`start` and `stop` it with the server. Unfinished candidates are made again after a restart."""

    def __init__(
        self,
        engine: AnyEngine,
        anchors: AnchorMaker,
        store: CandidateStore,
        anchor_store: AnchorStore,
        voices: VoiceService,
        config: ConfigService,
        *,
        word_errors: WordErrors,
    ) -> None:
        self._engine = engine
        self._anchors = anchors
        self._store = store
        self._anchor_store = anchor_store
        self._voices = voices
        self._word_errors = word_errors
        self._config = config
        self._running: dict[str, asyncio.Task[None]] = {}
        """Tasks that make candidates, by voice id."""
        self._checking: set[str] = set()
        self._changing = asyncio.Lock()
        """Held while a voice's candidates are replaced."""
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the candidates that an earlier server left unfinished; begin to delete expired ones."""
        await self.take_over()
        self._sweeping = asyncio.create_task(self._sweep())

    async def take_over(self) -> None:
        """Make the unfinished candidates of servers that are gone."""
        if self._engine.name != "dia":
            return
        async with self._changing:
            unfinished = await self._store.take_over()
            for voice_id in dict.fromkeys(candidate.voice_id for candidate in unfinished):
                await self._cancel(voice_id)  # this server may have lost them itself
                self._begin(voice_id, [one for one in unfinished if one.voice_id == voice_id])

    async def stop(self) -> None:
        """Stop making candidates; the next start makes the unfinished ones."""
        tasks = [*self._running.values(), *([self._sweeping] if self._sweeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def make(self, voice_id: str, request: CandidateRequest) -> Sequence[Candidate]:
        """Accept new candidates of a voice, which replace its former ones, and return them.

        Raises InvalidVoiceId, Invalid, TextTooLong, Overloaded or StorageUnavailable; Conflict if the engine
        does not clone or the voice has a recording; ModelNotLoaded if the model failed to load.
        """
        voice = self._designable(voice_id)
        if self._engine.name != "dia":
            raise Conflict(
                f"Candidates need Dia, which needs a GPU or DIA_ENGINE=dia: the voices of the "
                f"{self._engine.name} engine never change"
            )
        with nothing_begun():
            require_loadable(self._engine)
        text = check_text(request.text)
        first = random.randrange(2**32) if request.seed is None else request.seed
        candidates = [
            Candidate(
                voice_id=voice.voice_id,
                transcript=text,
                style=voice.style if request.style is None else request.style,
                seed=(first + n) % 2**32,
            )
            for n in range(request.count)
        ]
        # shielded: a candidate stored as pending must be made, even if the caller is cancelled
        await asyncio.shield(self._replace(voice.voice_id, candidates))
        return candidates

    async def ranked(self, voice_id: str) -> Sequence[Candidate]:
        """Return the candidates of a voice, the most promising first; raises InvalidVoiceId."""
        voice_id = self._voices.resolve(voice_id).voice_id
        anchors = self._anchor_store.all.values()
        pitches = [one.pitch for one in anchors if one.pitch is not None and one.voice_id != voice_id]
        return rank(await self._store.of_voice(voice_id), pitches)

    def is_checking(self, candidate: Candidate) -> bool:
        """Return whether Whisper is counting the candidate's word errors."""
        return candidate.status == "completed" and candidate.candidate_id in self._checking

    async def audio(self, voice_id: str, candidate_id: str) -> bytes:
        """Return the audio of a completed candidate as a WAV file.

        Raises InvalidVoiceId, NotFound or StorageUnavailable; Conflict if the candidate is not completed;
        UnusableAudio if its file is damaged.
        """
        voice_id = self._voices.resolve(voice_id).voice_id
        content = await self._store.content(await self._store.get(voice_id, candidate_id))
        return unpack(content).wav

    async def keep(self, voice_id: str, candidate_id: str) -> Anchor:
        """Make a candidate the anchor of its voice; the former anchor is replaced.

        Raises InvalidVoiceId, NotFound or StorageUnavailable; UnusableAudio if the candidate's file is
        damaged; Conflict if the voice has a recording or the candidate is not completed.
        """
        voice_id = self._designable(voice_id).voice_id
        candidate = await self._store.get(voice_id, candidate_id)
        content = await self._store.content(candidate)
        await asyncio.to_thread(unpack, content)
        assert candidate.model is not None
        assert candidate.duration is not None
        anchor = Anchor(
            voice_id=voice_id,
            digest=hashlib.sha256(content).hexdigest(),
            transcript=candidate.transcript,
            seed=candidate.seed,
            model=candidate.model,
            duration=candidate.duration,
            faults=candidate.faults,
            pitch=candidate.pitch,
            word_errors=candidate.word_errors,
        )
        await self._anchor_store.keep(anchor, content)
        return anchor

    async def discard(self, voice_id: str) -> str:
        """Cancel the unfinished candidates of a voice and delete all; return the voice's id.

        Raises InvalidVoiceId, StorageUnavailable.
        """
        voice_id = self._voices.resolve(voice_id).voice_id
        async with self._changing:
            await self._cancel(voice_id)
            await self._store.delete(voice_id)
        return voice_id

    def _designable(self, voice_id: str) -> Voice:
        """Return the voice; raises InvalidVoiceId, or Conflict if it has a recording."""
        voice = self._voices.resolve(voice_id)
        if voice.audio_prompt is not None:
            raise Conflict(
                f"Voice {voice.voice_id!r} speaks like its recording {voice.audio_prompt!r}, and an anchor "
                "would change nothing; POST /voice_mappings without audio_prompt parts it from the recording",
                param="voice_id",
            )
        return voice

    async def _replace(self, voice_id: str, candidates: Sequence[Candidate]) -> None:
        async with self._changing:
            former = await self._store.of_voice(voice_id)
            pending = await self._store.count_unfinished() - sum(one.status == "pending" for one in former)
            if pending + len(candidates) > MAX_PENDING:
                raise Overloaded(
                    f"{pending} candidates of other voices are being made; the limit is {MAX_PENDING}",
                    limit=MAX_PENDING,
                    retry_after=int(RETRY_S * MAX_COUNT),
                )
            await self._cancel(voice_id)
            await self._store.replace(voice_id, candidates)
            self._begin(voice_id, candidates)

    async def _cancel(self, voice_id: str) -> None:
        if task := self._running.get(voice_id):
            task.cancel()
            await asyncio.wait([task])

    def _begin(self, voice_id: str, candidates: Sequence[Candidate]) -> None:
        task = self._running[voice_id] = asyncio.create_task(self._make_all(candidates))
        task.add_done_callback(lambda _: self._forget(voice_id, task))

    def _forget(self, voice_id: str, task: asyncio.Task[None]) -> None:
        if self._running.get(voice_id) is task:
            del self._running[voice_id]

    async def _make_all(self, candidates: Sequence[Candidate]) -> None:
        await _retry(lambda: self._store.begin(candidates))
        async with asyncio.TaskGroup() as group:
            for candidate in candidates:
                group.create_task(self._make(candidate))

    async def _make(self, candidate: Candidate) -> None:
        """Make a candidate and store it, or the cause of its failure."""
        try:
            attempt = await _retry(lambda: self._attempt(candidate))
            done = await self._measure(candidate, attempt)
            content = await asyncio.to_thread(_file(done, attempt).pack)
            self._checking.add(done.candidate_id)  # before clients see it completed
            if await _retry(lambda: self._store.complete(done, content)):
                await self._check_words(done, attempt)
        except Exception as error:  # fails this candidate only
            if not isinstance(error, ServerError):
                log.error("candidate failed", voice=candidate.voice_id, exc_info=error)
                error = GenerationFailed(f"Generation failed: {type(error).__name__}")
            cause = str(error)
            await _retry(lambda: self._store.fail(candidate, cause))
        finally:
            self._checking.discard(candidate.candidate_id)

    async def _attempt(self, candidate: Candidate) -> Attempt:
        """Generate a candidate; raises GenerationFailed if nothing is heard in it."""
        voice = self._voices.resolve(candidate.voice_id)
        delivery = Delivery(background=True)
        (attempt,) = await self._anchors.attempts(voice, [candidate.seed], delivery, candidate.transcript)
        if not can_be_anchor(attempt):
            raise GenerationFailed("Dia made no audible speech with this seed")
        return attempt

    async def _measure(self, candidate: Candidate, attempt: Attempt) -> Candidate:
        return replace(
            candidate,
            model=await self._anchors.model(),
            duration=len(attempt.samples) / SAMPLE_RATE,
            faults=attempt.faults,
            pitch=await asyncio.to_thread(median_pitch, attempt.samples, SAMPLE_RATE),
        )

    async def _check_words(self, candidate: Candidate, attempt: Attempt) -> None:
        """Count the word errors, if Whisper is there; the candidate can be heard meanwhile."""
        rate = await self._word_errors(attempt.samples, candidate.transcript)
        if rate is not None:
            await _retry(lambda: self._store.set_word_errors(candidate, rate))

    async def _sweep(self) -> None:
        """Delete candidates as finished jobs are deleted: `output_retention_hours` after their end."""
        while True:
            if hours := self._config.current.output_retention_hours:
                try:
                    await self._store.expire(now() - timedelta(hours=hours))
                except StorageUnavailable as error:
                    log.warning("candidates not expired yet", error=str(error), retry_s=SWEEP_S)
                except Exception as error:  # the next sweep may succeed
                    log.error("candidates not expired", exc_info=error)
            await asyncio.sleep(SWEEP_S)


def _file(candidate: Candidate, attempt: Attempt) -> AnchorFile:
    assert candidate.model is not None
    assert attempt.frames is not None
    description = Description(transcript=candidate.transcript, seed=candidate.seed, model=candidate.model)
    return AnchorFile(description, attempt.samples, attempt.frames)


async def _retry(work: Callable[[], Awaitable[T]]) -> T:
    """Repeat `work` while the engine is loading or busy, or the database is unavailable."""
    while True:
        try:
            return await work()
        except StorageUnavailable as error:
            log.warning("candidate not stored yet", error=str(error), retry_s=RETRY_S)
        except (ModelNotLoaded, Overloaded):
            pass
        await asyncio.sleep(RETRY_S)
