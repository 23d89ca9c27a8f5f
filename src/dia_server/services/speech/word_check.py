"""Checks with Whisper whether generated audio says its text."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dia_server.audio.encode import encode
from dia_server.engine.types import Samples
from dia_server.errors import UnusableAudio, WhisperNotAvailable
from dia_server.services.voices.transcription import Transcription
from dia_server.text.clean import clean
from dia_server.text.word_errors import word_error_rate
from dia_server.units import SAMPLE_RATE

log = structlog.get_logger()


class WordCheck:
    """Flags segments whose word error rate exceeds a limit."""

    def __init__(self, transcribe: Callable[[bytes], Awaitable[Transcription]], most: float) -> None:
        """`transcribe` transcribes an audio file; `most` is the maximum word error rate."""
        self._transcribe = transcribe
        self._most = most
        self._unavailable = False

    async def exceeds_limit(self, samples: Samples, text: str) -> bool:
        """Return whether the transcript differs too much from `text`; False if Whisper cannot transcribe."""
        rate = await self.errors(samples, text)
        return rate is not None and rate > self._most

    async def errors(self, samples: Samples, text: str) -> float | None:
        """Return the word error rate of the transcript; None if Whisper cannot transcribe.

        Numbers are compared in words, because Whisper writes "twenty" as "20".
        """
        try:
            heard = await self._transcribe(await asyncio.to_thread(encode, samples, SAMPLE_RATE, "wav"))
        except (WhisperNotAvailable, UnusableAudio) as error:
            if not self._unavailable:
                log.warning("words are not checked", cause=str(error))
            self._unavailable = True
            return None
        self._unavailable = False
        return word_error_rate(clean(text), clean(heard.text))
