"""Anchors: speech that Dia generated once for a voice without a recording, and the prompt of all it says.

Files are named after their digest; the rows of the database say which voice has which file.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Self

import structlog
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.audio.loudness import gain_db
from dia_server.db.models import VoiceAnchor, VoiceMapping, now
from dia_server.db.upsert import upsert
from dia_server.engine.types import GeneratedAudio, VoicePrompt
from dia_server.errors import InvalidVoiceId, PromptNotUsable
from dia_server.services.voices.anchor_file import SUFFIX, AnchorFile, unpack
from dia_server.services.voices.anchor_folder import AnchorFiles
from dia_server.services.voices.file_commit import committing
from dia_server.services.voices.uninterrupted import uninterrupted
from dia_server.units import SAMPLE_RATE

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Metadata of an anchor, as stored in the database."""

    voice_id: str
    digest: str
    """SHA-256 of the file."""
    transcript: str
    """Words of the anchor, without speaker tags."""
    seed: int
    model: str
    """Id and revision of the model that generated it."""
    duration: float
    """Duration in seconds."""
    faults: tuple[str, ...] = ()
    """Names of the faults that the guard found."""
    pitch: float | None = None
    """Median fundamental frequency in Hz; None if it is not known."""
    word_errors: float | None = None
    """Word error rate by Whisper; None if it was not asked."""
    created_at: datetime = field(default_factory=now)

    @classmethod
    def of(cls, row: VoiceAnchor) -> Self:
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})

    @property
    def file_name(self) -> str:
        return self.digest + SUFFIX

    def row(self) -> VoiceAnchor:
        return VoiceAnchor(**asdict(self))


class AnchorStore:
    """Reads metadata from memory. A change is applied to files and database, or to neither."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], files: AnchorFiles) -> None:
        self._sessions = sessions
        self.files = files
        self._anchors: dict[str, Anchor] = {}
        self._prompts: dict[str, VoicePrompt] = {}
        """Prompts of the anchors that have been used, by digest: 16 kB for 10 s."""
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Load the metadata of all anchors, at the start and after another server's change."""
        async with self._lock, self._sessions() as session:
            rows = await session.scalars(select(VoiceAnchor).order_by(VoiceAnchor.created_at))
            self._anchors = {row.voice_id: Anchor.of(row) for row in rows}

    async def clean(self) -> None:
        """Remove files without a row, which a crash left; raises StorageUnavailable."""

        async def names() -> set[str]:
            async with self._sessions() as session:
                return {digest + SUFFIX for digest in await session.scalars(select(VoiceAnchor.digest))}

        await self.files.clean(names)

    @property
    def all(self) -> Mapping[str, Anchor]:
        """The anchors by voice id."""
        return MappingProxyType(self._anchors)

    async def read(self, anchor: Anchor) -> AnchorFile:
        """Return the content of an anchor's file.

        Raises PromptNotUsable if the file is missing or has another digest; StorageUnavailable.
        """
        return await asyncio.to_thread(unpack, await self.content(anchor))

    async def prompt(self, anchor: Anchor) -> VoicePrompt:
        """Return an anchor as a prompt, with its transcript given to [S1]; raises as `read`."""
        if (prompt := self._prompts.get(anchor.digest)) is None:
            content = await self.content(anchor)
            prompt = self._prompts[anchor.digest] = await asyncio.to_thread(_prompt, anchor, content)
        return prompt

    async def content(self, anchor: Anchor) -> bytes:
        """Return the bytes of an anchor's file; raises as `read`."""
        try:
            content = await self.files.read(anchor.file_name)
        except OSError as error:
            raise _unusable(anchor, f"cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != anchor.digest:
            raise _unusable(anchor, "has been changed")
        return content

    async def keep(self, anchor: Anchor, content: bytes, *, replace: bool = True) -> None:
        """Store an anchor and the `content` of its file.

        If the voice has an anchor, also one that another server has just stored, it is replaced, or with
        `replace=False` kept instead. Raises InvalidVoiceId if the voice has been deleted, or
        StorageUnavailable, and then changes nothing. Cancellation does not interrupt it.
        """
        await uninterrupted(self._keep(anchor, content, replace=replace))

    async def delete(self, voice_id: str) -> None:
        """Delete the anchor of a voice, if it has one; raises StorageUnavailable."""
        async with self._lock:
            if voice_id in self._anchors:
                async with self._sessions.begin() as session:
                    await session.execute(delete(VoiceAnchor).where(VoiceAnchor.voice_id == voice_id))
                await self._remove_file(self._anchors.pop(voice_id))

    @asynccontextmanager
    async def importing(self) -> AsyncIterator[dict[str, Anchor | None]]:
        """Add, replace or delete anchors in a transaction of the caller, who also writes their files.

        Yields an empty dictionary for the anchors by voice id; None deletes one. They exist once the `with`
        block has ended.
        """
        async with self._lock:
            imported: dict[str, Anchor | None] = {}
            yield imported
            former = [self._anchors.pop(voice_id, None) for voice_id in imported]
            self._anchors |= {voice_id: one for voice_id, one in imported.items() if one is not None}
            for anchor in former:
                await self._remove_file(anchor)

    async def forget(self, voice_id: str) -> None:
        """Remove the file of a voice's anchor, if it has one; the caller has deleted its row."""
        async with self._lock:
            await self._remove_file(self._anchors.pop(voice_id, None))

    async def _keep(self, anchor: Anchor, content: bytes, *, replace: bool) -> None:
        async with self._lock:
            files = {anchor.file_name: content}
            async with committing(self.files.change(), files, self._sessions, "anchor") as session:
                voice = await session.get(VoiceMapping, anchor.voice_id, with_for_update=True)
                if voice is None:
                    raise InvalidVoiceId(
                        f"Voice {anchor.voice_id!r} has been deleted during the request", param="voice_id"
                    )
                stored = await session.get(VoiceAnchor, anchor.voice_id)
                if stored is None or replace:
                    await upsert(session, anchor.row())
            former = [self._anchors.get(anchor.voice_id)]
            if stored is not None and not replace:
                former.append(anchor)
                anchor = Anchor.of(stored)
            self._anchors[anchor.voice_id] = anchor
            for one in former:
                await self._remove_file(one)

    async def _remove_file(self, anchor: Anchor | None) -> None:
        """Remove the file of a former anchor, unless a voice still has it."""
        if anchor is not None and all(one.digest != anchor.digest for one in self._anchors.values()):
            self._prompts.pop(anchor.digest, None)
            await self.files.remove([anchor.file_name])


def _prompt(anchor: Anchor, content: bytes) -> VoicePrompt:
    file = unpack(content)
    gain = gain_db(file.samples, SAMPLE_RATE)
    return VoicePrompt((GeneratedAudio(file.frames),), f"[S1] {anchor.transcript}", gain)


def _unusable(anchor: Anchor, cause: str) -> PromptNotUsable:
    return PromptNotUsable(
        f"The anchor of voice {anchor.voice_id!r} {cause}. Restore {anchor.file_name} from a backup, or "
        f"delete the anchor with DELETE /voices/{anchor.voice_id}/anchor to have another one made",
        param="voice_id",
    )
