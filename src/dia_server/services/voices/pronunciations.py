"""Pronunciations: words that are said in another spelling, by all voices or by one."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.db import models
from dia_server.db.advisory_lock import lock_between_servers
from dia_server.db.models import VoiceMapping
from dia_server.db.upsert import upsert
from dia_server.errors import Invalid, InvalidVoiceId, NotFound
from dia_server.text.pronunciation import WORD, Table, plain

MAX_LENGTH = 64
"""Maximum characters of a word, and of a respelling."""
MAX_ENTRIES = 5000
"""Maximum pronunciations of all voices together."""
LOCK = "pronunciations"
"""Name of the lock between servers that holds while the number of pronunciations may grow."""
SHAPES = {
    "word": (re.compile(WORD), "one word"),
    "respelling": (re.compile(rf"{WORD}(?: {WORD})*"), "one or more words"),
}
"""Shape of each field, and its name in errors."""


@dataclass(frozen=True, slots=True)
class Pronunciation:
    """A word and its respelling, which `checked` has found well-formed."""

    word: str
    respelling: str
    voice_id: str = ""
    """Voice that says the word so; empty for all voices."""

    @property
    def key(self) -> tuple[str, str]:
        return self.voice_id, self.word


def checked(word: str, respelling: str, voice_id: str = "") -> Pronunciation:
    """Return a pronunciation with its accents composed; raises Invalid."""
    return Pronunciation(_checked("word", word), _checked("respelling", respelling), voice_id)


class PronunciationStore:
    """Reads pronunciations from memory, so that speech does not wait. Changes go to the database first."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        self._tables: dict[str, dict[str, str]] = {}
        """Table of each voice by its id; replaced, never changed, as another thread may be reading it."""
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Load all pronunciations into memory, at the start and after another server's change."""
        async with self._lock, self._sessions() as session:
            self._use(await _stored(session))

    @property
    def all(self) -> list[Pronunciation]:
        """All pronunciations: those of all voices first, then by voice and word."""
        return [
            Pronunciation(word, table[word], voice_id)
            for voice_id, table in sorted(self._tables.items())
            for word in sorted(table)
        ]

    def tables(self, voice_id: str) -> Sequence[Table]:
        """Return the tables for what a voice says: its own, then that of all voices; without empty ones."""
        return [table for key in (voice_id, "") if (table := self._tables.get(key))]

    async def save(self, entry: Pronunciation) -> None:
        """Add `entry`, or replace that of its voice and word.

        Raises Invalid above MAX_ENTRIES, InvalidVoiceId if its voice does not exist.
        """
        async with self._lock:
            async with self._sessions.begin() as session:
                await lock_between_servers(session, LOCK)
                await _require_voices(session, [entry])
                row = models.Pronunciation(
                    voice_id=entry.voice_id, word=entry.word, respelling=entry.respelling
                )
                await upsert(session, row)
                _require_room(await session.scalar(select(func.count()).select_from(models.Pronunciation)))
            self._tables |= {
                entry.voice_id: self._tables.get(entry.voice_id, {}) | {entry.word: entry.respelling}
            }

    async def add(self, entries: Iterable[Pronunciation], *, replace: bool) -> int:
        """Add all `entries` or none; return the number of pronunciations that there are then.

        `replace` first deletes all that there were; otherwise those of the same voice and word are replaced.
        Raises as `save`.
        """
        entries = list(entries)
        async with self._lock:
            async with self._sessions.begin() as session:
                await lock_between_servers(session, LOCK)
                await _require_voices(session, entries)
                former = [] if replace else await _stored(session)
                merged = {entry.key: entry for entry in [*former, *entries]}
                _require_room(len(merged))
                await session.execute(delete(models.Pronunciation))
                if merged:
                    rows = [
                        {"voice_id": one.voice_id, "word": one.word, "respelling": one.respelling}
                        for one in merged.values()
                    ]
                    await session.execute(insert(models.Pronunciation), rows)
            self._use(merged.values())
        return len(merged)

    async def delete(self, word: str, voice_id: str = "") -> None:
        """Delete the pronunciation of a word by a voice; raises NotFound."""
        word = plain(word)
        async with self._lock:
            if word not in self._tables.get(voice_id, {}):
                whose = f"voice {voice_id!r} has" if voice_id else "all voices have"
                raise NotFound(
                    f"word: {whose} no pronunciation of {word!r}; GET /pronunciations lists them",
                    param="word",
                )
            async with self._sessions.begin() as session:
                await session.execute(
                    delete(models.Pronunciation).where(
                        models.Pronunciation.voice_id == voice_id, models.Pronunciation.word == word
                    )
                )
            self._use(entry for entry in self.all if entry.key != (voice_id, word))

    def forget(self, voice_id: str) -> None:
        """Drop the pronunciations of a deleted voice; the caller has deleted their rows."""
        self._tables.pop(voice_id, None)

    def _use(self, entries: Iterable[Pronunciation]) -> None:
        tables: dict[str, dict[str, str]] = {}
        for entry in entries:
            tables.setdefault(entry.voice_id, {})[entry.word] = entry.respelling
        self._tables = tables


def _checked(field: str, value: str) -> str:
    value = plain(value)
    shape, kind = SHAPES[field]
    if len(value) > MAX_LENGTH or not shape.fullmatch(value):
        raise Invalid(
            f"{field} must be {kind} of letters and digits, with ' and - only inside, and have "
            f"1 to {MAX_LENGTH} characters",
            param=field,
            limit=MAX_LENGTH if len(value) > MAX_LENGTH else None,
        )
    return value


def _require_room(count: int | None) -> None:
    if count is not None and count > MAX_ENTRIES:
        raise Invalid(
            f"word: the limit is {MAX_ENTRIES:,} pronunciations; DELETE /pronunciations deletes one",
            param="word",
            limit=MAX_ENTRIES,
        )


async def _require_voices(session: AsyncSession, entries: Iterable[Pronunciation]) -> None:
    """Raise InvalidVoiceId unless the voices exist; they cannot be deleted until the transaction ends."""
    wanted = {entry.voice_id for entry in entries} - {""}
    known = await session.scalars(
        select(VoiceMapping.voice_id)
        .where(VoiceMapping.voice_id.in_(wanted))
        .with_for_update(read=True, key_share=True)
    )
    if missing := wanted.difference(known):
        raise InvalidVoiceId(
            f"Voice {min(missing)!r} does not exist; GET /voices lists them", param="voice_id"
        )


async def _stored(session: AsyncSession) -> list[Pronunciation]:
    row = models.Pronunciation
    found = await session.execute(select(row.word, row.respelling, row.voice_id))
    return [Pronunciation(*columns) for columns in found]
