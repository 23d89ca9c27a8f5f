"""Transcribes audio prompts with Whisper: on request, or automatically if they have no transcript."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from dia_server.errors import ServerError, UnusableAudio
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.prompt_folder import Skipped
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.recordings import Recordings
from dia_server.services.voices.whisper import Whisper

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Discovery:
    total: int
    changed: list[Prompt]
    """Prompts that are new, or whose recording or transcript has changed during the scan."""
    skipped: list[Skipped]


class TranscriptService:
    def __init__(
        self,
        prompts: PromptService,
        recordings: Recordings,
        whisper: Whisper,
        *,
        auto_transcribe: bool,
        wait_s: float,
    ) -> None:
        """`wait_s` is the maximum number of seconds that a response waits for automatic transcripts."""
        self.auto_transcribe = auto_transcribe
        """Whether prompts without a transcript are transcribed automatically; may be set at any time."""
        self._prompts = prompts
        self._recordings = recordings
        self._whisper = whisper
        self._wait_s = wait_s
        self._queued: dict[Prompt, asyncio.Task[None]] = {}
        """Automatic transcriptions, which run one at a time to bound memory. `transcribe` does not queue."""
        self._running: dict[Prompt, asyncio.Task[Prompt]] = {}
        self._turn = asyncio.Lock()

    def is_pending(self, prompt: Prompt) -> bool:
        """Return whether the prompt has no transcript yet, but its transcription is queued or running."""
        return prompt.transcript is None and (prompt in self._queued or prompt in self._running)

    def note(self, prompt: Prompt) -> str | None:
        """Say what to do before the prompt can be cloned; None if nothing is left to do."""
        if prompt.transcript is not None:
            return prompt.review if prompt.needs_review else None
        if self.is_pending(prompt):
            return (
                "Whisper is transcribing the recording; "
                f"GET /audio_prompts/metadata/{prompt.prompt_id} shows the transcript"
            )
        missing = self._whisper.error or "The recording has no transcript"
        return f"{missing}; PUT /audio_prompts/{prompt.prompt_id}/transcript sets it"

    async def transcribe(self, prompt_id: str) -> Prompt:
        """Transcribe a prompt now, replace its transcript and return the new prompt.

        Raises NotFound, PromptNotUsable, UnusableAudio, Conflict, WhisperNotAvailable, StorageUnavailable.
        """
        # shielded: another request may await the same task
        return await asyncio.shield(self._begin(self._prompts.get(prompt_id)))

    async def ensure_transcript(self, prompt: Prompt) -> Prompt:
        """Queue `prompt` for transcription, if it has no transcript and `auto_transcribe` is on.

        Waits at most `wait_s` seconds and returns the prompt, whose transcript may still be missing.
        """
        if prompt.transcript is None and self.auto_transcribe:
            await self._queue_all([prompt], self._wait_s)
        return self._prompts.all.get(prompt.prompt_id, prompt)

    async def discover(self, *, force_retranscribe: bool = False, wait: bool = True) -> Discovery:
        """Add, update and remove prompts to match the folder; return what has changed.

        If `auto_transcribe` is on, prompts without a transcript are transcribed.
        `force_retranscribe` transcribes them even if `auto_transcribe` is off, and also prompts with a
        transcript by Whisper. Waits until all are transcribed, at most `wait_s` seconds, or not at all if
        `wait` is False; the rest continues in the background. Raises StorageUnavailable.
        """
        before = dict(self._prompts.all)
        skipped = await self._prompts.discover()
        if self.auto_transcribe or force_retranscribe:
            sources = {None, "whisper_auto"} if force_retranscribe else {None}
            selected = [
                prompt for prompt in self._prompts.all.values() if prompt.transcript_source in sources
            ]
            await self._queue_all(selected, self._wait_s if wait else 0)
        now = self._prompts.all.values()
        changed = [prompt for prompt in now if before.get(prompt.prompt_id) != prompt]
        return Discovery(len(now), changed, skipped)

    async def close(self) -> None:
        """Wait until all transcriptions have ended. Close Whisper first, so that they fail at once."""
        tasks = [*self._queued.values(), *self._running.values()]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _queue_all(self, prompts: Iterable[Prompt], wait_s: float) -> None:
        if tasks := [self._queue(prompt) for prompt in prompts]:
            await asyncio.wait(tasks, timeout=wait_s)

    def _queue(self, prompt: Prompt) -> asyncio.Task[None]:
        if (task := self._queued.get(prompt)) is None:
            task = self._queued[prompt] = asyncio.create_task(self._transcribe_in_turn(prompt))
            task.add_done_callback(lambda _: self._queued.pop(prompt))
        return task

    async def _transcribe_in_turn(self, prompt: Prompt) -> None:
        async with self._turn:
            if self._prompts.all.get(prompt.prompt_id) == prompt:
                await asyncio.wait([self._begin(prompt)])

    def _begin(self, prompt: Prompt) -> asyncio.Task[Prompt]:
        if (task := self._running.get(prompt)) is None:
            task = self._running[prompt] = asyncio.create_task(self._transcribe(prompt))
            task.add_done_callback(lambda task: self._end(prompt, task))
        return task

    def _end(self, prompt: Prompt, task: asyncio.Task[Prompt]) -> None:
        del self._running[prompt]
        if not task.cancelled() and (error := task.exception()) is not None:
            cause = None if isinstance(error, ServerError) else error
            log.warning("transcription failed", prompt=prompt.prompt_id, error=str(error), exc_info=cause)

    async def _transcribe(self, prompt: Prompt) -> Prompt:
        recording = await self._recordings.read(prompt)
        heard = await self._whisper.transcribe(recording)
        if not heard.text:
            raise UnusableAudio(f"Whisper found no words in audio prompt {prompt.prompt_id!r}")
        return await self._prompts.set_transcript(
            prompt, heard.text, "whisper_auto", heard.confidence, needs_review=heard.needs_review
        )
