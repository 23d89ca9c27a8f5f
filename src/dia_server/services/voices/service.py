"""Voices: mappings from voice ids to settings, stored in the database and kept in memory for speech."""

import asyncio
import re
import unicodedata
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.db.models import Pronunciation, VoiceAnchor, VoiceCandidate, VoiceMapping
from dia_server.db.upsert import is_duplicate, upsert
from dia_server.errors import Conflict, Invalid, InvalidVoiceId
from dia_server.services.voices import ids
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.text.speakers import Speaker as Speaker
from dia_server.text.speakers import has_visible_text

Write = Callable[[AsyncSession], Coroutine[Any, Any, None]]
"""Writes rows in the transaction of a session."""

MAX_NAME = 128
"""Maximum characters of a display name."""
MAX_SHOWN = 100
"""Maximum characters of an unknown id that an error repeats."""
FORBIDDEN_IN_NAMES = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, surrogates and line breaks. Format characters (Cf) are allowed:
Persian and Indic names need joiners."""


@dataclass(frozen=True, slots=True)
class Voice:
    voice_id: str
    style: str = "neutral"
    primary_speaker: Speaker = "S1"
    audio_prompt: str | None = None
    audio_prompt_transcript: str | None = None
    display_name: str | None = None
    """Name in any script; None if clients see a name derived from the id."""
    partner: str | None = None
    """Id of the voice that speaks for the other speaker of a text with two speakers; if it is None, one of
    PARTNERS does."""

    @property
    def name(self) -> str:
        """Name that clients show: the display name, or one derived from the id."""
        return self.display_name or re.sub(r"[_-]+", " ", self.voice_id).strip().title() or self.voice_id

    @property
    def has_recording(self) -> bool:
        """Whether the voice is that of a recording, whose speaker says untagged text."""
        return self.audio_prompt is not None

    @property
    def seed(self) -> int:
        """Default sampling seed, so that a voice speaks the same text the same way every time."""
        return zlib.crc32(self.voice_id.encode())

    def row(self) -> VoiceMapping:
        return VoiceMapping(**asdict(self))


@dataclass(frozen=True, slots=True)
class VoiceSnapshot(Voice):
    """A voice as it was when a request was accepted; the request uses this, even if the voice changes."""

    recording: str | None = None
    """SHA-256 of the audio prompt's WAV file; None if the voice had no audio prompt, or it did not exist."""
    anchor: str | None = None
    """SHA-256 of the anchor's file; None if the voice had a recording, or no anchor yet."""
    reference: str | None = None
    """SHA-256 of the WAV file that the request carried, which replaces the audio prompt; None if none did."""
    reference_transcript: str | None = None
    """Words of the reference; None without one."""

    @property
    def has_recording(self) -> bool:
        return self.audio_prompt is not None or self.reference is not None


@dataclass(frozen=True, slots=True)
class CastSnapshot:
    """The voices of a request as they were when it was accepted."""

    voice: VoiceSnapshot
    """The request's own voice, which speaks as S1 or S2."""
    partner: VoiceSnapshot | None = None
    """Voice of the other one of S1 and S2; None if the request's voice speaks for both."""
    called: Mapping[str, VoiceSnapshot] = field(default_factory=dict)
    """Voices by what the tags of the text call: "S3", or "voice:luna"."""


BUILT_IN = MappingProxyType(
    {
        voice.voice_id: voice
        for voice in (
            Voice("aria", "neutral", "S1", partner="atlas"),
            Voice("atlas", "calm", "S1", partner="aria"),
            Voice("luna", "expressive", "S2", partner="kai"),
            Voice("kai", "friendly", "S1", partner="luna"),
            Voice("zara", "deep", "S2", partner="nova"),
            Voice("nova", "bright", "S1", partner="zara"),
        )
    }
)

PARTNERS = ("atlas", "aria")
"""Partners of voices that name none; a voice is not its own partner."""

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

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        anchors: AnchorStore,
        pronunciations: PronunciationStore,
    ) -> None:
        self._sessions = sessions
        self._anchors = anchors
        self._pronunciations = pronunciations
        self._voices: dict[str, Voice] = {}
        self._lock = asyncio.Lock()
        """Held while voices change: a voice must not be deleted while another one makes it its partner."""

    async def load(self) -> None:
        """Load all voices into memory, at the start and after another server's change."""
        async with self._lock, self._sessions() as session:
            rows = await session.scalars(select(VoiceMapping).order_by(VoiceMapping.created_at))
            self._voices = {row.voice_id: _voice(row) for row in rows}

    @property
    def all(self) -> Mapping[str, Voice]:
        return MappingProxyType(self._voices)

    def resolve(self, voice_id: str) -> Voice:
        """Return the voice with this id, else with this id in another case, else with this OpenAI alias.

        Raises InvalidVoiceId, also if several ids differ from `voice_id` only in case.
        """
        voice_id = voice_id.strip()
        if voice := self._voices.get(voice_id):
            return voice
        lower = voice_id.lower()
        similar = [voice for voice in self._voices.values() if voice.voice_id.lower() == lower]
        if len(similar) > 1:
            names = ", ".join(repr(voice.voice_id) for voice in similar)
            raise InvalidVoiceId(
                f"Voice {voice_id!r} does not exist; {names} differ from it only in case", param="voice_id"
            )
        if voice := similar[0] if similar else self._voices.get(ALIASES.get(lower, "")):
            return voice
        raise _unknown(voice_id)

    def partner(self, voice: Voice) -> Voice:
        """Return the voice that speaks for the other speaker of a text with two."""
        if found := self._voices.get(voice.partner or ""):
            return found
        return self._voices[next(voice_id for voice_id in PARTNERS if voice_id != voice.voice_id)]

    async def save(self, voice: Voice) -> Voice:
        """Create or replace a voice; return it with its display name stripped.

        Raises Invalid if its id or display name is malformed, or if its partner does not exist or is itself.
        """
        async with self._lock:
            return await self._save(voice)

    async def delete(self, voice_id: str) -> bool:
        """Delete a voice and return True; reset a built-in voice to its original settings and return False.

        Its anchor is deleted too, and with a deleted voice its pronunciations. The deleted voice is no longer
        the partner of any other. Raises InvalidVoiceId.
        """
        async with self._lock:
            if voice_id not in self._voices:
                raise _unknown(voice_id)
            if original := BUILT_IN.get(voice_id):
                await self._anchors.delete(voice_id)
                await self._save(original)
                return False
            async with self._sessions.begin() as session:
                await _delete_row(session, voice_id)
            await self._forget(voice_id)
            return True

    @asynccontextmanager
    async def adding(self, voice: Voice) -> AsyncIterator[Write]:
        """Add `voice` in a transaction of the caller: yields the function that writes its row.

        The voice exists once the `with` block has committed the transaction and ended. Raises Conflict if a
        voice has its id in any case.
        """
        async with self._lock:
            self.require_new(voice.voice_id)

            async def write(session: AsyncSession) -> None:
                session.add(voice.row())
                try:
                    await session.flush()
                except IntegrityError as error:
                    if is_duplicate(error):  # another server has added it
                        raise _taken(voice.voice_id) from error
                    raise

            yield write
            self._voices[voice.voice_id] = voice

    @asynccontextmanager
    async def deleting(self, voice_id: str) -> AsyncIterator[Write]:
        """Delete a voice in a transaction of the caller: yields the function that deletes its row.

        The voice is gone once the `with` block has committed the transaction and ended. Raises
        InvalidVoiceId, or Conflict if the voice is built in.
        """
        async with self._lock:
            self.require_deletable(voice_id)

            async def write(session: AsyncSession) -> None:
                await _delete_row(session, voice_id)

            yield write
            await self._forget(voice_id)

    @asynccontextmanager
    async def importing(self) -> AsyncIterator[dict[str, Voice]]:
        """Add or replace voices in a transaction of the caller.

        Yields an empty dictionary for the voices by id. They exist once the `with` block has ended.
        """
        async with self._lock:
            imported: dict[str, Voice] = {}
            yield imported
            self._voices |= imported

    def require_new(self, voice_id: str) -> None:
        """Raise Conflict if a voice has this id in any case."""
        lower = voice_id.lower()
        if taken := next((other for other in self._voices if other.lower() == lower), None):
            raise _taken(taken)

    def require_deletable(self, voice_id: str) -> None:
        """Raise InvalidVoiceId if the voice does not exist, Conflict if it is built in."""
        if voice_id not in self._voices:
            raise _unknown(voice_id)
        if voice_id in BUILT_IN:
            raise Conflict(
                f"Voice {voice_id!r} is built in and cannot be deleted; DELETE /voice_mappings/{voice_id} "
                "resets its settings",
                param="voice_id",
            )

    async def _forget(self, voice_id: str) -> None:
        await self._anchors.forget(voice_id)
        self._pronunciations.forget(voice_id)
        del self._voices[voice_id]
        for other in list(self._voices.values()):
            if other.partner == voice_id:
                self._voices[other.voice_id] = replace(other, partner=None)

    async def _save(self, voice: Voice) -> Voice:
        ids.check(voice.voice_id, "voice_id")
        if voice.display_name is not None:
            voice = replace(voice, display_name=clean_name(voice.display_name))
        self._check_partner(voice)
        async with self._sessions.begin() as session:
            await upsert(session, voice.row())
        self._voices[voice.voice_id] = voice
        return voice

    def _check_partner(self, voice: Voice) -> None:
        if voice.partner == voice.voice_id:
            raise Invalid(f"partner of voice {voice.voice_id!r} must be another voice", param="partner")
        if voice.partner is not None and voice.partner not in self._voices:
            raise Invalid(
                f"partner: voice {voice.partner!r} does not exist; GET /voices lists them", param="partner"
            )


def clean_name(name: str, field: str = "display_name") -> str:
    """Return a display name without surrounding white space.

    Raises Invalid for the request field `field` if the name is malformed.
    """
    name = name.strip()
    forbidden = any(unicodedata.category(character) in FORBIDDEN_IN_NAMES for character in name)
    if forbidden or len(name) > MAX_NAME or not has_visible_text(name):
        raise Invalid(
            f"{field} must be 1 to {MAX_NAME} characters, without control characters or line breaks, "
            "and with a visible one",
            param=field,
            limit=MAX_NAME if len(name) > MAX_NAME else None,
        )
    return name


async def _delete_row(session: AsyncSession, voice_id: str) -> None:
    """Delete the voice's rows, and its id where it is another voice's partner.

    The voice's own row comes first: its lock makes the writer of an anchor or a pronunciation end before
    these are deleted.
    """
    await session.execute(delete(VoiceMapping).where(VoiceMapping.voice_id == voice_id))
    await session.execute(delete(VoiceCandidate).where(VoiceCandidate.voice_id == voice_id))
    await session.execute(delete(VoiceAnchor).where(VoiceAnchor.voice_id == voice_id))
    await session.execute(delete(Pronunciation).where(Pronunciation.voice_id == voice_id))
    await session.execute(update(VoiceMapping).where(VoiceMapping.partner == voice_id).values(partner=None))


def _voice(row: VoiceMapping) -> Voice:
    return Voice(
        row.voice_id,
        row.style,
        row.primary_speaker,
        row.audio_prompt,
        row.audio_prompt_transcript,
        row.display_name,
        row.partner,
    )


def _taken(voice_id: str) -> Conflict:
    return Conflict(
        f"Voice {voice_id!r} exists already; delete it first, or choose another name", param="voice_id"
    )


def _unknown(voice_id: str) -> InvalidVoiceId:
    if len(voice_id) > MAX_SHOWN:
        voice_id = f"{voice_id[:MAX_SHOWN]}..."
    return InvalidVoiceId(f"Voice {voice_id!r} does not exist; GET /voices lists them", param="voice_id")
