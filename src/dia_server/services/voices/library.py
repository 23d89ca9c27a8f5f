"""A library of voices: exported to one archive, and imported from it, all of it or nothing."""

import asyncio
import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog
from sqlalchemy import delete, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.audio import prompt as audio
from dia_server.db.models import AudioPrompt, Base, VoiceAnchor
from dia_server.errors import Conflict, Invalid, PromptNotUsable, StorageUnavailable, UnusableAudio
from dia_server.services.durable_files import (
    FileChange,
    RecoverableChange,
    read_journal,
    remove_journal,
    undo,
)
from dia_server.services.voices import ids, library_archive, prompt_folder
from dia_server.services.voices.anchor_file import unpack
from dia_server.services.voices.anchors import Anchor, AnchorStore
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.library_archive import (
    AnchorEntry,
    Archive,
    FileEntry,
    Manifest,
    RecordingEntry,
    VoiceEntry,
    refusal,
)
from dia_server.services.voices.prompt_folder import PromptFolder, Sidecar, txt_name, wav_name
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.service import BUILT_IN, Voice, VoiceService, clean_name
from dia_server.text.speakers import clean_transcript

log = structlog.get_logger()


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
        """Undo an import that was interrupted before the database committed it; call before `load`s.

        Raises OSError.
        """
        journal = await asyncio.to_thread(read_journal, self._folder.path)
        if journal is None:
            return
        async with self._sessions() as session:
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
            voices=[_voice_entry(voice, chosen) for voice in voices],
            recordings=[_recording_entry(prompt) for prompt in prompts.values()],
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
            voices = [_voice(entry) for entry in manifest.voices]
            texts = {entry.prompt_id: _transcript(entry) for entry in manifest.recordings}
            prompts = []
            for entry in manifest.recordings:
                wav = self._wav(entry, archive)
                changes.prompts.add(wav_name(entry.prompt_id), wav)
                if (text := texts[entry.prompt_id]) and not entry.needs_review:
                    changes.prompts.add(txt_name(entry.prompt_id), f"{text}\n".encode())
                prompts.append(_prompt(entry, wav, text))
            anchors = {entry.voice_id: _stage_anchor(entry, archive, changes) for entry in manifest.anchors}
        changes.prompts.committed |= {prompt.prompt_id: _digests(prompt) for prompt in prompts}
        return Imported(voices, prompts, anchors, manifest.licence)

    def _wav(self, entry: RecordingEntry, archive: Archive) -> bytes:
        """Return the WAV file of a recording: as it is if it was exported, else converted like an upload."""
        content = archive.content(entry)
        if audio.is_made(content):
            return content
        with _naming(entry):
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
                await session.execute(delete(VoiceAnchor).where(VoiceAnchor.voice_id.in_(voice_ids)))
                for row in imported.rows:
                    await session.merge(row)
                await session.flush()
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
                f"{library_archive.FIELD}: on this server exist already: {', '.join(taken)}; "
                "replace=true replaces them",
                param=library_archive.FIELD,
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
        return AnchorEntry(
            voice_id=anchor.voice_id,
            sha256=anchor.digest,
            size=len(self._anchors.content(anchor)),
            faults=list(anchor.faults),
            pitch=anchor.pitch,
            word_errors=anchor.word_errors,
        )


def _digests(prompt: Prompt | AudioPrompt) -> str:
    """Return the digests of a prompt's files, by which the database and the folder agree."""
    return f"{prompt.digest} {prompt.sidecar_digest}"


def _voice_entry(voice: Voice, exported: Sequence[str]) -> VoiceEntry:
    partner = voice.partner if voice.partner in {*exported, *BUILT_IN} else None
    return VoiceEntry(**asdict(replace(voice, partner=partner)))


def _recording_entry(prompt: Prompt) -> RecordingEntry:
    source = prompt.transcript_source
    return RecordingEntry(
        prompt_id=prompt.prompt_id,
        sha256=prompt.digest,
        size=prompt.file_size,
        transcript=prompt.transcript,
        transcript_source=source and ("whisper_auto" if source == "whisper_auto" else "manual"),
        consent=prompt.consent,
        needs_review=prompt.needs_review,
    )


def _voice(entry: VoiceEntry) -> Voice:
    """Return the voice of an entry; raises Invalid."""
    voice = Voice(**msgspec.structs.asdict(entry))
    with _checking(f"voice {entry.voice_id!r}"):
        ids.check(voice.voice_id, "voice_id")
        if voice.display_name is None:
            return voice
        return replace(voice, display_name=clean_name(voice.display_name))


def _transcript(entry: RecordingEntry) -> str | None:
    """Check the entry's id; return its transcript as one line, None if it has none. Raises Invalid."""
    with _checking(f"recording {entry.prompt_id!r}"):
        prompt_folder.check_id(entry.prompt_id)
    if entry.transcript is None:
        return None
    if not (text := clean_transcript(entry.transcript)):
        raise refusal(f"recording {entry.prompt_id!r}: transcript contains no spoken words")
    return text


def _stage_anchor(entry: AnchorEntry, archive: Archive, changes: _Changes) -> Anchor:
    """Check an anchor's file and stage it; raises Invalid, UnusableAudio."""
    content = archive.content(entry)
    with _naming(entry):
        file = unpack(content)
    anchor = Anchor(
        voice_id=entry.voice_id,
        digest=entry.sha256,
        transcript=file.description.transcript,
        seed=file.description.seed,
        model=file.description.model,
        duration=file.duration_s,
        faults=tuple(entry.faults),
        pitch=entry.pitch,
        word_errors=entry.word_errors,
    )
    changes.anchors.add(anchor.file_name, content)
    return anchor


@contextmanager
def _naming(entry: FileEntry) -> Iterator[None]:
    """Name the archive and the entry in an UnusableAudio that the `with` block raises."""
    try:
        yield
    except UnusableAudio as error:
        field = library_archive.FIELD
        raise UnusableAudio(f"{field}: {entry.name}: {error}", param=field, limit=error.limit) from error


@contextmanager
def _checking(what: str) -> Iterator[None]:
    """Name the archive as the field at fault in an Invalid that the `with` block raises."""
    try:
        yield
    except Invalid as error:
        raise refusal(f"{what}: {error}", limit=error.limit) from error


def _prompt(entry: RecordingEntry, wav: bytes, text: str | None) -> Prompt:
    is_draft = entry.needs_review and text is not None
    return Prompt(
        prompt_id=entry.prompt_id,
        digest=hashlib.sha256(wav).hexdigest(),
        duration=audio.duration(wav),
        file_size=len(wav),
        transcript=text,
        transcript_source=None if text is None else entry.transcript_source or "manual",
        sidecar_digest=None if text is None or is_draft else Sidecar("txt", text).digest,
        confidence=None,
        needs_review=is_draft,
        created_at=datetime.now(UTC),
        consent=entry.consent,
    )
