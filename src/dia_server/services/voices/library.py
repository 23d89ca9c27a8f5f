"""A library of voices: exported to one archive, and imported from it, all of it or nothing."""

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog
from sqlalchemy import delete, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.audio import prompt as audio
from dia_server.db.locks import lock_between_servers
from dia_server.db.models import AudioPrompt, Base, VoiceAnchor
from dia_server.db.upsert import upsert
from dia_server.errors import Conflict, PromptNotUsable, StorageUnavailable
from dia_server.services.durable_files import (
    FileChange,
    RecoverableChange,
    read_journal,
    remove_journal,
    undo,
)
from dia_server.services.voices import library_archive
from dia_server.services.voices.anchors import Anchor, AnchorStore
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.library_archive import Archive
from dia_server.services.voices.library_manifest import (
    FIELD,
    AnchorEntry,
    FileEntry,
    Manifest,
    RecordingEntry,
    anchor_entry,
    anchor_of,
    naming,
    prompt_of,
    recording_entry,
    refusal,
    transcript_of,
    voice_entry,
    voice_of,
)
from dia_server.services.voices.prompt_folder import PromptFolder, txt_name, wav_name
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.service import BUILT_IN, Voice, VoiceService

log = structlog.get_logger()

IMPORT_LOCK = "import"
"""Name of the lock between servers that have the folder of audio prompts in common: it has one journal."""


@dataclass(frozen=True, slots=True)
class Imported:
    voices: list[Voice]
    prompts: list[Prompt]
    anchors: dict[str, Anchor]
    """The anchors by voice id."""
    licence: str | None

    @property
    def rows(self) -> list[Base]:
        return [one.row() for part in (self.voices, self.prompts, self.anchors.values()) for one in part]


class _Changes:
    """The files of an import, staged in both folders, and put in place together."""

    def __init__(self, prompts: Path, anchors: Path) -> None:
        self.prompts = RecoverableChange(prompts)
        self.anchors = FileChange(anchors)
        """Needs no journal: its files are named after digests, and a start removes those without a row."""

    def apply(self) -> None:
        self.anchors.apply()
        self.prompts.apply()

    def rollback(self) -> None:
        self.prompts.rollback()
        self.anchors.rollback()

    def cleanup(self) -> None:
        self.prompts.cleanup()
        self.anchors.cleanup()


class VoiceLibrary:
    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        folder: PromptFolder,
        prompts: PromptService,
        voices: VoiceService,
        anchors: AnchorStore,
    ) -> None:
        self._sessions = sessions
        self._folder = folder
        self._prompts = prompts
        self._voices = voices
        self._anchors = anchors
        self._turn = asyncio.Lock()
        """Held by an export or import, each of which may hold a recording in memory."""

    async def recover(self) -> None:
        """Undo an import that was interrupted before the database committed it.

        Waits for the import of another server. Raises OSError.
        """
        async with self._sessions.begin() as session:
            await lock_between_servers(session, IMPORT_LOCK)
            journal = await asyncio.to_thread(read_journal, self._folder.path)
            if journal is None:
                return
            rows = await session.scalars(select(AudioPrompt))
            stored = {row.prompt_id: _digests(row) for row in rows}
            if journal.committed.items() <= stored.items():
                await asyncio.to_thread(remove_journal, self._folder.path)
            else:
                await asyncio.to_thread(undo, self._folder.path, journal)
                log.warning("interrupted import undone", audio_prompts=sorted(journal.committed))

    async def export(self, voice_ids: Sequence[str], *, licence: str | None = None) -> BinaryIO:
        """Return an archive of the voices as a temporary file at position 0, which the caller closes.

        If `voice_ids` is empty, these are all voices that have a recording or an anchor or are not built in.
        A partner that is neither exported nor built in is left out. Raises InvalidVoiceId or
        StorageUnavailable; PromptNotUsable if a recording or anchor is missing or has changed; Conflict if it
        changes meanwhile; Invalid if the archive would be too large.
        """
        if voice_ids:
            chosen = list({self._voices.resolve(voice_id).voice_id: None for voice_id in voice_ids})
        else:
            chosen = [voice.voice_id for voice in self._voices.all.values() if self._is_own(voice)]
        voices = [self._voices.all[voice_id] for voice_id in chosen]
        prompts = {prompt.prompt_id: prompt for voice in voices for prompt in self._prompt_of(voice)}
        manifest = Manifest(
            licence=licence,
            voices=[voice_entry(voice, chosen) for voice in voices],
            recordings=[recording_entry(prompt) for prompt in prompts.values()],
            anchors=[
                await asyncio.to_thread(self._anchor_entry, anchor)
                for voice in voices
                if voice.audio_prompt is None and (anchor := self._anchors.all.get(voice.voice_id))
            ],
        )
        async with self._turn:
            try:
                return await asyncio.to_thread(self._write, manifest)
            except OSError as error:
                raise StorageUnavailable(f"The archive cannot be written: {error.strerror}") from error

    async def add(self, file: BinaryIO, *, overwrite: bool = False) -> Imported:
        """Import the archive `file`: its voices with their recordings and anchors, or nothing.

        Everything is checked first. Raises NativeUnavailable or StorageUnavailable; Invalid or UnusableAudio
        if something is wrong with the archive; Conflict if ids exist already, unless `overwrite` is true. If
        it is, their voices and recordings are replaced, with all files of the recordings.
        """
        changes = _Changes(self._folder.path, self._anchors.folder)
        async with self._turn:
            try:
                imported = await asyncio.to_thread(self._stage, file, changes)
                await self._commit(imported, changes, overwrite=overwrite)
            except BaseException as error:
                await asyncio.to_thread(changes.rollback)
                if isinstance(error, OSError):
                    raise StorageUnavailable(f"The voices cannot be written: {error.strerror}") from error
                if isinstance(error, DBAPIError):
                    raise StorageUnavailable(f"The database cannot be written: {error.orig}") from error
                raise
            try:
                await asyncio.to_thread(changes.cleanup)
            except OSError as error:
                log.error("journal of a completed import not removed", cause=str(error))
        return imported

    def _stage(self, file: BinaryIO, changes: _Changes) -> Imported:
        """Check the archive and stage its files in `changes`; blocks."""
        with library_archive.opened(file) as archive:
            manifest = archive.manifest
            voices = [voice_of(entry) for entry in manifest.voices]
            texts = {entry.prompt_id: transcript_of(entry) for entry in manifest.recordings}
            prompts = []
            for entry in manifest.recordings:
                wav = self._wav(entry, archive)
                changes.prompts.add(wav_name(entry.prompt_id), wav)
                if (text := texts[entry.prompt_id]) and not entry.needs_review:
                    changes.prompts.add(txt_name(entry.prompt_id), f"{text}\n".encode())
                prompts.append(prompt_of(entry, wav, text))
            anchors = {}
            for described in manifest.anchors:
                content = archive.content(described)
                anchor = anchors[described.voice_id] = anchor_of(described, content)
                changes.anchors.add(anchor.file_name, content)
        changes.prompts.committed |= {prompt.prompt_id: _digests(prompt) for prompt in prompts}
        return Imported(voices, prompts, anchors, manifest.licence)

    def _wav(self, entry: RecordingEntry, archive: Archive) -> bytes:
        """Return the WAV file of a recording: as it is if it was exported, else converted like an upload."""
        content = archive.content(entry)
        if audio.is_made(content):
            return content
        with naming(entry):
            return self._folder.make(io.BytesIO(content))

    async def _commit(self, imported: Imported, changes: _Changes, *, overwrite: bool) -> None:
        """Write the rows and put the staged files in place, while no voice, prompt or anchor can change."""
        async with (
            self._prompts.importing() as prompts,
            self._voices.importing() as voices,
            self._anchors.importing() as anchors,
        ):
            self._check_partners(imported.voices)
            former = {
                prompt.prompt_id: await asyncio.to_thread(self._folder.files_of, prompt.prompt_id)
                for prompt in imported.prompts
            }
            if not overwrite:
                self._require_new(imported, [prompt_id for prompt_id, files in former.items() if files])
            for name in {name for files in former.values() for name in files} - changes.prompts.names:
                changes.prompts.add(name, None)
            voice_ids = [voice.voice_id for voice in imported.voices]
            async with self._sessions.begin() as session:
                await lock_between_servers(session, IMPORT_LOCK)
                await session.execute(delete(VoiceAnchor).where(VoiceAnchor.voice_id.in_(voice_ids)))
                for row in imported.rows:
                    await upsert(session, row)
                await asyncio.to_thread(changes.apply)
            prompts |= {prompt.prompt_id: prompt for prompt in imported.prompts}
            voices |= {voice.voice_id: voice for voice in imported.voices}
            anchors |= {voice_id: imported.anchors.get(voice_id) for voice_id in voice_ids}

    def _check_partners(self, imported: list[Voice]) -> None:
        known = {*self._voices.all, *(voice.voice_id for voice in imported)}
        for voice in imported:
            if voice.partner == voice.voice_id or voice.partner not in {None, *known}:
                raise refusal(
                    f"the partner {voice.partner!r} of voice {voice.voice_id!r} is not another voice of the "
                    "archive or of this server"
                )

    def _require_new(self, imported: Imported, prompt_ids: list[str]) -> None:
        """Raise Conflict if a voice or recording exists; built-in voices may, if they are as they came."""
        voice_ids = [
            voice.voice_id
            for voice in imported.voices
            if self._voices.all.get(voice.voice_id) not in (None, BUILT_IN.get(voice.voice_id))
            or voice.voice_id in self._anchors.all
        ]
        taken = [f"voice {name!r}" for name in voice_ids] + [f"audio prompt {name!r}" for name in prompt_ids]
        if taken:
            raise Conflict(
                f"{FIELD}: on this server exist already: {', '.join(taken)}; replace=true replaces them",
                param=FIELD,
            )

    def _is_own(self, voice: Voice) -> bool:
        """Return whether a voice is more than a built-in one without a recording and an anchor."""
        has_sound = voice.audio_prompt is not None or voice.voice_id in self._anchors.all
        return has_sound or voice.voice_id not in BUILT_IN

    def _prompt_of(self, voice: Voice) -> list[Prompt]:
        if voice.audio_prompt is None:
            return []
        if (prompt := self._prompts.all.get(voice.audio_prompt)) is None:
            raise PromptNotUsable(
                f"Voice {voice.voice_id!r} uses audio prompt {voice.audio_prompt!r}, which does not exist; "
                "upload it, or choose other voices with voice_id",
                param="voice_id",
            )
        return [prompt]

    def _write(self, manifest: Manifest) -> BinaryIO:
        file = self._folder.spool()
        try:
            library_archive.write(file, manifest, self._content)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def _content(self, entry: FileEntry) -> bytes:
        if isinstance(entry, RecordingEntry):
            return self._folder.read_stored(entry.prompt_id, entry.sha256)
        anchor = self._anchors.all.get(entry.voice_id)
        if anchor is None or anchor.digest != entry.sha256:
            raise Conflict(f"The anchor of voice {entry.voice_id!r} has changed during the export; try again")
        return self._anchors.content(anchor)

    def _anchor_entry(self, anchor: Anchor) -> AnchorEntry:
        return anchor_entry(anchor, len(self._anchors.content(anchor)))


def _digests(prompt: Prompt | AudioPrompt) -> str:
    """Return the digests of a prompt's files, by which the database and the folder agree."""
    return f"{prompt.digest} {prompt.sidecar_digest}"
