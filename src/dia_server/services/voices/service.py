"""Voices: mappings from voice ids to settings, stored in the database and kept in memory for speech."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.db.models import VoiceMapping
from dia_server.errors import InvalidVoiceId
from dia_server.services.voices import ids
from dia_server.text.speakers import Speaker as Speaker


@dataclass(frozen=True, slots=True)
class Voice:
    voice_id: str
    style: str = "neutral"
    primary_speaker: Speaker = "S1"
    audio_prompt: str | None = None
    audio_prompt_transcript: str | None = None

    @property
    def name(self) -> str:
        """Display name, derived from the id."""
        return re.sub(r"[_-]+", " ", self.voice_id).strip().title() or self.voice_id

    @property
    def seed(self) -> int:
        """Default sampling seed, so that a voice speaks the same text the same way every time."""
        return zlib.crc32(self.voice_id.encode())


@dataclass(frozen=True, slots=True)
class VoiceSnapshot(Voice):
    """A voice as it was when a request was accepted; the request uses this, even if the voice changes."""

    recording: str | None = None
    """SHA-256 of the audio prompt's WAV file; None if the voice had no audio prompt, or it did not exist."""
    second: "VoiceSnapshot | None" = None
    """Voice of the speaker [S2]; None if this voice is used for both speakers."""


BUILT_IN = MappingProxyType(
    {
        voice.voice_id: voice
        for voice in (
            Voice("aria", "neutral", "S1"),
            Voice("atlas", "calm", "S1"),
            Voice("luna", "expressive", "S2"),
            Voice("kai", "friendly", "S1"),
            Voice("zara", "deep", "S2"),
            Voice("nova", "bright", "S1"),
        )
    }
)

ALIASES = MappingProxyType(
    {
        "alloy": "aria",
        "ash": "atlas",
        "ballad": "luna",
        "cedar": "kai",
        "coral": "luna",
        "echo": "atlas",
        "fable": "kai",
        "marin": "nova",
        "onyx": "zara",
        "sage": "aria",
        "shimmer": "nova",
        "verse": "kai",
    }
)
"""Built-in voice for each of OpenAI's voice names, which clients send by default. OpenAI's `nova` is missing,
because a built-in voice has that id."""


class VoiceService:
    """Reads voices from memory, so that speech does not wait. Changes go to the database, then to memory."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        self._voices: dict[str, Voice] = {}

    async def load(self) -> None:
        """Load all voices into memory; `all` is empty until then."""
        async with self._sessions() as session:
            rows = await session.scalars(select(VoiceMapping).order_by(VoiceMapping.created_at))
            self._voices = {row.voice_id: _voice(row) for row in rows}

    @property
    def all(self) -> Mapping[str, Voice]:
        return MappingProxyType(self._voices)

    def resolve(self, voice_id: str) -> Voice:
        """Return the voice with this id or OpenAI alias; raises InvalidVoiceId."""
        voice_id = voice_id.strip()
        voice = self._voices.get(voice_id) or self._voices.get(ALIASES.get(voice_id.lower(), ""))
        if voice is None:
            raise _unknown(voice_id)
        return voice

    async def save(self, voice: Voice) -> None:
        """Create or replace a voice; raises Invalid if its id is malformed."""
        ids.check(voice.voice_id, "voice_id")
        async with self._sessions.begin() as session:
            row = await session.get(VoiceMapping, voice.voice_id) or VoiceMapping(voice_id=voice.voice_id)
            row.style = voice.style
            row.primary_speaker = voice.primary_speaker
            row.audio_prompt = voice.audio_prompt
            row.audio_prompt_transcript = voice.audio_prompt_transcript
            session.add(row)
        self._voices[voice.voice_id] = voice

    async def delete(self, voice_id: str) -> bool:
        """Delete a voice and return True; reset a built-in voice to its original settings and return False.

        Raises InvalidVoiceId.
        """
        if voice_id not in self._voices:
            raise _unknown(voice_id)
        if original := BUILT_IN.get(voice_id):
            await self.save(original)
            return False
        async with self._sessions.begin() as session:
            await session.execute(delete(VoiceMapping).where(VoiceMapping.voice_id == voice_id))
        self._voices.pop(voice_id, None)  # a concurrent request may have deleted it
        return True


def _voice(row: VoiceMapping) -> Voice:
    return Voice(row.voice_id, row.style, row.primary_speaker, row.audio_prompt, row.audio_prompt_transcript)


def _unknown(voice_id: str) -> InvalidVoiceId:
    return InvalidVoiceId(f"Voice {voice_id!r} does not exist; GET /voices lists them", param="voice_id")
