"""A request for speech, and its result."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dia_server.audio.encode import MEDIA_TYPES as MEDIA_TYPES
from dia_server.audio.encode import AudioFormat as AudioFormat
from dia_server.engine.types import Utterance, VoicePrompt
from dia_server.services.speech.timestamps import Granularity, Timestamp, Timing
from dia_server.services.speech.usage import Usage, UsageMeter
from dia_server.services.voices.service import CastSnapshot
from dia_server.services.voices.voice_prompts import Cast, CastPrompts
from dia_server.text.language import TextWarning as TextWarning
from dia_server.text.language import language_warning
from dia_server.text.plan import Plan, PlannedUtterance
from dia_server.text.pronunciation import Respelled

Role = Literal["user", "assistant", "system"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """A client's request. A field that is None gets the default of the voice or the model."""

    text: str
    """Text as the client sent it."""
    voice_id: str
    voice_id_2: str | None = None
    """Voice of the speaker [S2]; None if the partner of `voice_id` speaks for the other speaker."""
    response_format: AudioFormat = "wav"
    speed: float = 1.0
    role: Role | None = None
    temperature: float | None = None
    cfg_scale: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    normalize: bool | None = None
    """Whether the text is cleaned (see `text.clean`); None for the server's setting."""
    normalize_loudness: bool | None = None
    """Whether the speech gets the loudness of all other voices; None for the server's setting."""
    timestamps: Granularity | None = None
    """What has a timestamp each; None for no timestamps."""
    voices: Mapping[str, str] | None = None
    """Voice ids of speakers, from "S1" to "S9"."""
    cast: Mapping[str, str] | None = None
    """Voice ids by the names that begin the lines of a script, as in "Anna: Hello"."""
    turn_by_turn: bool = False
    """Whether the text is one of `dialogue_text`, so that each turn is cleaned by itself."""

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.response_format]

    @property
    def warnings(self) -> tuple[TextWarning, ...]:
        """What the client should know about its text; nothing is refused for it."""
        warning = language_warning(self.text)
        return () if warning is None else (warning,)

    def utterance(self, text: str, cast: Cast) -> Utterance:
        """Return one utterance of the whole `text`, with the resolved seed and the sampling parameters."""
        sampling: dict[str, Any] = {
            "temperature": self.temperature,
            "cfg_scale": self.cfg_scale,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
        }
        assert self.seed is not None
        return Utterance(
            text,
            "+".join(voice.voice_id for voice in cast.values()),
            seed=self.seed,
            **{name: value for name, value in sampling.items() if value is not None},
        )


@dataclass(frozen=True, slots=True)
class Speech:
    request: SpeechRequest
    """The request with its voice ids and seed resolved."""
    voices: CastSnapshot
    audio: bytes
    """Content of the audio file; empty if it was streamed and `save_outputs` is off."""
    usage: Usage
    timestamps: Sequence[Timestamp] | None = None
    """In the order of the recording; None if the request asks for none."""

    @property
    def seed(self) -> int:
        assert self.request.seed is not None
        return self.request.seed


@dataclass(frozen=True, slots=True)
class SegmentVoices:
    """The one or two voices of a segment."""

    voice: str
    """Their ids, joined by "+"."""
    prompt: VoicePrompt | None
    gain_db: float | None
    """Decibels by which the speech is amplified, before it is limited and encoded; None if it is neither
    amplified nor limited."""


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A resolved request with its voices, its plan and its utterance."""

    request: SpeechRequest
    voices: CastSnapshot
    said: Respelled
    """Text as it is said: cleaned, unless the request says otherwise, and with its words respelled."""
    plan: Plan
    utterance: Utterance
    """Utterance of the whole text; the segments take its sampling parameters."""
    prompts: CastPrompts
    amplified: bool
    """Whether all voices get the same loudness."""
    ready: bool = True
    """Whether it can be rendered; False if a voice has no anchor yet."""
    timing: Timing | None = None

    def voice_ids(self, planned: PlannedUtterance) -> dict[str, str]:
        """Return the voice that each tag of a segment stands for."""
        cast = self.prompts.cast
        return {
            tag: cast[speaker].voice_id
            for tag, speaker in planned.speakers.items()
            if speaker in cast and f"[{tag}]" in planned.text
        }

    def segment_voices(self, planned: PlannedUtterance) -> SegmentVoices:
        prompt = self.prompts.prompt(planned.speakers)
        gain_db = prompt.gain_db if prompt is not None and self.amplified else None
        return SegmentVoices(self.prompts.voice(planned.speakers), prompt, gain_db)

    def speech(
        self, audio: bytes, meter: UsageMeter, timestamps: Sequence[Timestamp] | None = None
    ) -> Speech:
        return Speech(self.request, self.voices, audio, meter.total(self.request.speed), timestamps)


@dataclass(frozen=True, slots=True)
class Streamed:
    """Audio that is sent while it is generated: iterate over it for the file's bytes, then `aclose` it.

    `parts` also yields the timestamps.
    """

    first: bytes
    remaining: AsyncGenerator[bytes | Sequence[Timestamp]]
    """The file's further bytes, and between them the timestamps of each segment, if it has any."""
    media_type: str
    seed: int
    meter: UsageMeter
    warnings: tuple[TextWarning, ...]
    """What the client should know about its text."""

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        async for part in self.parts():
            if isinstance(part, bytes):
                yield part

    async def parts(self) -> AsyncGenerator[bytes | Sequence[Timestamp]]:
        """Yield the file's bytes and, after each segment, its timestamps."""
        yield self.first
        async for part in self.remaining:
            yield part

    async def aclose(self) -> None:
        """Stop the generation, if it is still running, and free its slots."""
        await self.remaining.aclose()
