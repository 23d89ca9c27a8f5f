"""Speech: from what a client asks for to encoded audio."""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import structlog

from dia_server.audio.encode import MEDIA_TYPES as MEDIA_TYPES
from dia_server.audio.encode import AudioFormat as AudioFormat
from dia_server.audio.encode import encode
from dia_server.audio.tempo import change_tempo
from dia_server.engine.pool import AnyEngine
from dia_server.engine.types import SAMPLE_RATE, Samples, Utterance, VoicePrompt
from dia_server.errors import Invalid, TextTooLong
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


class SpeechService:
    def __init__(
        self, engine: AnyEngine, voices: VoiceService, prompts: VoicePrompts, *, show_prompts: bool
    ) -> None:
        self._engine = engine
        self._voices = voices
        self._prompts = prompts
        self._show_prompts = show_prompts

    async def speak(self, request: SpeechRequest) -> Speech:
        """Make the whole audio of `request`; cancelling this frees the engine's slot.

        Raises InvalidVoiceId, TextTooLong, Invalid, PromptNotUsable, ModelNotLoaded, Overloaded,
        AudioProcessingError.
        """
        voice = self._voices.resolve(request.voice_id)
        utterance = self._utterance(request, voice, await self._prompts.of(voice))
        if self._show_prompts:
            log.info("speaking", text=utterance.text, voice=utterance.voice)
        async with self._engine.submit(utterance) as generation:
            pieces = [chunk.samples async for chunk in generation]
        audio = await asyncio.to_thread(_finish, pieces, request.speed, request.response_format)
        return Speech(audio, MEDIA_TYPES[request.response_format], utterance.seed)

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


def _finish(pieces: list[Samples], speed: float, audio_format: AudioFormat) -> bytes:
    return encode(change_tempo(np.concatenate(pieces), SAMPLE_RATE, speed), SAMPLE_RATE, audio_format)
