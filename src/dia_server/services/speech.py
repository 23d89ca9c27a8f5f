"""Speech: from what a client asks for to encoded audio."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import structlog

from dia_server.audio.encode import MEDIA_TYPES as MEDIA_TYPES
from dia_server.audio.encode import AudioFormat as AudioFormat
from dia_server.audio.encode import Encoder, encode
from dia_server.audio.tempo import Tempo, change_tempo
from dia_server.engine.pool import AnyEngine
from dia_server.engine.types import SAMPLE_RATE, Utterance, VoicePrompt
from dia_server.engine.types import Samples as Samples
from dia_server.errors import Invalid, TextTooLong
from dia_server.services.config import ConfigService
from dia_server.services.stats import Made
from dia_server.services.voice_prompts import VoicePrompts
from dia_server.services.voices import Voice, VoiceService
from dia_server.text.speakers import Speaker, tag

log = structlog.get_logger()

MAX_CHARACTERS = 4096
SPEAKERS: dict[str, Speaker] = {"user": "S1", "assistant": "S2", "system": "S2"}
"""Who says untagged text in a chat, by role."""

Role = Literal["user", "assistant", "system"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """What a client asks for; None stands for "as the voice or the model has it"."""

    text: str
    voice_id: str
    response_format: AudioFormat = "wav"
    speed: float = 1.0
    role: Role | None = None
    temperature: float | None = None
    cfg_scale: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    use_torch_compile: bool | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Speech:
    audio: bytes
    media_type: str
    seed: int
    made: Made


Listener = Callable[[Samples, float], None]
"""Is told of new audio and of how much of the whole is made, 0 to 1, while it is made."""


class SpeechService:
    def __init__(
        self,
        engine: AnyEngine,
        voices: VoiceService,
        prompts: VoicePrompts,
        config: ConfigService,
        finished: Callable[[SpeechRequest, Voice, Speech | None], None],
    ) -> None:
        """`finished` is told of every request that `speak` has answered; None is a failure."""
        self._engine = engine
        self._voices = voices
        self._prompts = prompts
        self._config = config
        self._finished = finished

    async def speak(self, request: SpeechRequest) -> Speech:
        """Make the whole audio of `request`; cancelling this frees the engine's slot.

        Raises InvalidVoiceId, TextTooLong, Invalid, PromptNotUsable, ModelNotLoaded, Overloaded,
        AudioProcessingError.
        """
        request, voice = self.settle(request)
        try:
            speech = await self.make(request, voice)
        except Exception:
            self._finished(request, voice, None)
            raise
        self._finished(request, voice, speech)
        return speech

    def settle(self, request: SpeechRequest) -> tuple[SpeechRequest, Voice]:
        """Decide what `request` leaves open: with its voice, it makes the same audio at any later time.

        Raises InvalidVoiceId, TextTooLong, Invalid.
        """
        voice = self._voices.resolve(request.voice_id)
        utterance = self._utterance(request, voice, None)
        return replace(request, voice_id=voice.voice_id, seed=utterance.seed), voice

    async def make(
        self,
        request: SpeechRequest,
        voice: Voice,
        listener: Listener | None = None,
        *,
        background: bool = False,
    ) -> Speech:
        """Make the audio of a settled request; `background` lets others go first."""
        utterance = self._utterance(request, voice, await self._prompts.of(voice))
        if self._config.current.show_prompts:
            log.info("speaking", text=utterance.text, voice=utterance.voice)
        started = time.perf_counter()
        pieces, tokens = [], 0
        async with self._engine.submit(utterance, background=background) as generation:
            async for chunk in generation:
                pieces.append(chunk.samples)
                tokens += chunk.tokens
                if listener is not None:
                    listener(chunk.samples, chunk.progress)
        made = Made(
            generation_s=time.perf_counter() - started,
            tokens=tokens,
            audio_s=sum(map(len, pieces)) / SAMPLE_RATE / request.speed,
        )
        audio = await asyncio.to_thread(_finish, pieces, request.speed, request.response_format)
        return Speech(audio, MEDIA_TYPES[request.response_format], utterance.seed, made)

    def _utterance(self, request: SpeechRequest, voice: Voice, prompt: VoicePrompt | None) -> Utterance:
        if len(request.text) > MAX_CHARACTERS:
            raise TextTooLong(
                f"The text has {len(request.text)} characters; the limit is {MAX_CHARACTERS}", param="text"
            )
        speaker = voice.primary_speaker
        if request.role is not None and voice.audio_prompt is None:
            speaker = SPEAKERS[request.role]
        if not (text := tag(request.text, speaker)):
            raise Invalid("The text holds nothing to say", param="text")
        wishes: dict[str, Any] = {
            "temperature": request.temperature,
            "cfg_scale": request.cfg_scale,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens,
            "compile": request.use_torch_compile,
        }
        return Utterance(
            text,
            voice.voice_id,
            seed=voice.seed if request.seed is None else request.seed,
            prompt=prompt,
            **{name: value for name, value in wishes.items() if value is not None},
        )


class SpeechStream:
    """The bytes of one file of speech as its samples come; calls take processor time, one at a time."""

    def __init__(self, request: SpeechRequest) -> None:
        self._tempo = Tempo(request.speed, SAMPLE_RATE)
        self._encoder = Encoder(request.response_format, SAMPLE_RATE)

    def push(self, samples: Samples) -> bytes:
        """Return what is ready; it may be nothing."""
        return self._encoder.push(self._tempo.push(samples))

    def finish(self) -> bytes:
        return self._encoder.push(self._tempo.finish()) + self._encoder.finish()


def _finish(pieces: list[Samples], speed: float, audio_format: AudioFormat) -> bytes:
    return encode(change_tempo(np.concatenate(pieces), SAMPLE_RATE, speed), SAMPLE_RATE, audio_format)
