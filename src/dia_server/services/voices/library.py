"""A library of voices: exported to one archive, and imported from it, all of it or nothing."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

import structlog
from sqlalchemy import delete, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.audio import prompt as audio
from dia_server.db.advisory_lock import lock_between_servers
from dia_server.db.models import AudioPrompt, Base, VoiceAnchor, VoiceMapping
from dia_server.db.upsert import insert_new, upsert
from dia_server.errors import Conflict, PromptNotUsable, StorageUnavailable
from dia_server.services.file_change import Change
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
from dia_server.services.voices.prompt_folder import txt_name, wav_name
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.recordings import Recordings
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
    """The files of an import, which are put in place together."""

    def __init__(self, prompts: Change, anchors: Change) -> None:
        self.prompts = prompts
        self.anchors = anchors
        """Needs no journal: its files are named after digests, and a start removes those without a row."""
        self.names: set[str] = set()
        """Names of the files in `prompts`."""

    async def add_prompt_file(self, name: str, content: bytes | None) -> None:
        self.names.add(name)
        await self.prompts.add(name, content)

    async def apply(self) -> None:
        await self.anchors.apply()
        await self.prompts.apply()

    async def rollback(self) -> None:
        await self.prompts.rollback()
        await self.anchors.rollback()

    async def cleanup(self) -> None:
        await self.prompts.cleanup()
        await self.anchors.cleanup()


class VoiceLibrary:
    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        recordings: Recordings,
        prompts: PromptService,
        voices: VoiceService,
        anchors: AnchorStore,
    ) -> None:
        self._sessions = sessions
        self._recordings = recordings
        self._prompts = prompts
        self._voices = voices
        self._anchors = anchors
        self._turn = asyncio.Lock()
        """Held by an export or import, each of which may hold a recording in memory."""

    async def recover(self) -> None:
        """Undo an import that was interrupted before the database committed it.

        Waits for the import of another server. Raises OSError.
        """
        async with self._alone():
            pass

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
                await self._anchor_entry(anchor)
                for voice in voices
                if voice.audio_prompt is None and (anchor := self._anchors.all.get(voice.voice_id))
            ],
        )
        async with self._turn:
            try:
                return await self._write(manifest)
            except OSError as error:
                raise StorageUnavailable(f"The archive cannot be written: {error.strerror}") from error

    async def add(self, file: BinaryIO, *, overwrite: bool = False) -> Imported:
        """Import the archive `file`: its voices with their recordings and anchors, or nothing.

        Everything is checked first. Raises NativeUnavailable or StorageUnavailable; Invalid or UnusableAudio
        if something is wrong with the archive; Conflict if ids exist already, unless `overwrite` is true. If
        it is, their voices and recordings are replaced, with all files of the recordings.
        """
        try:
            async with self._turn:
                return await self._import(file, overwrite=overwrite)
        except OSError as error:
            raise StorageUnavailable(f"The voices cannot be written: {error.strerror}") from error
        except DBAPIError as error:
            cause = str(error.orig).partition("\n")[0]  # PostgreSQL quotes values in further lines
            raise StorageUnavailable(f"The database cannot be written: {cause}") from error

    async def _import(self, file: BinaryIO, *, overwrite: bool) -> Imported:
        """See `add`. The lock between servers is held until the files are in place, or back in theirs."""
        changes = _Changes(self._recordings.importing(), self._anchors.files.change())
        async with AsyncExitStack() as stack:
            try:
                imported = await self._stage(file, changes)
                await stack.enter_async_context(self._alone())
                await self._commit(imported, changes, overwrite=overwrite)
            except BaseException:
                await changes.rollback()
                raise
            try:
                await changes.cleanup()
            except OSError as error:
                log.error("journal of a completed import not removed", cause=str(error))
        return imported

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold the lock between servers in a transaction of its own; first undo what was interrupted.

        Raises OSError or StorageUnavailable.
        """

        async def stored() -> dict[str, str]:
            async with self._sessions() as reading:
                return {row.prompt_id: _digests(row) for row in await reading.scalars(select(AudioPrompt))}

        async with self._sessions() as session:
            await lock_between_servers(session, IMPORT_LOCK)
            await self._recordings.recover(stored)
            yield

    async def _stage(self, file: BinaryIO, changes: _Changes) -> Imported:
        """Check the archive and stage its files in `changes`."""
        with ExitStack() as stack:
            archive = await asyncio.to_thread(stack.enter_context, library_archive.opened(file))
            manifest = archive.manifest
            voices = [voice_of(entry) for entry in manifest.voices]
            texts = {entry.prompt_id: transcript_of(entry) for entry in manifest.recordings}
            prompts = []
            for entry in manifest.recordings:
                wav = await asyncio.to_thread(self._wav, entry, archive)
                await changes.add_prompt_file(wav_name(entry.prompt_id), wav)
                if (text := texts[entry.prompt_id]) and not entry.needs_review:
                    await changes.add_prompt_file(txt_name(entry.prompt_id), f"{text}\n".encode())
                prompts.append(prompt_of(entry, wav, text))
            anchors = {}
            for described in manifest.anchors:
                content = await asyncio.to_thread(archive.content, described)
                anchor = anchors[described.voice_id] = anchor_of(described, content)
                await changes.anchors.add(anchor.file_name, content)
        changes.prompts.committed |= {prompt.prompt_id: _digests(prompt) for prompt in prompts}
        return Imported(voices, prompts, anchors, manifest.licence)

    def _wav(self, entry: RecordingEntry, archive: Archive) -> bytes:
        """Return the WAV file of a recording: as it is if it was exported, else converted like an upload."""
        content = archive.content(entry)
        if audio.is_made(content):
            return content
        with naming(entry):
            return self._recordings.make(io.BytesIO(content))

    async def _commit(self, imported: Imported, changes: _Changes, *, overwrite: bool) -> None:
        """Write the rows and put the staged files in place, while no voice, prompt or anchor can change."""
        async with (
            self._prompts.importing() as prompts,
            self._voices.importing() as voices,
            self._anchors.importing() as anchors,
        ):
            self._check_partners(imported.voices)
            prompt_ids = [prompt.prompt_id for prompt in imported.prompts]
            former = {prompt_id: await self._prompts.files_of(prompt_id) for prompt_id in prompt_ids}
            if not overwrite:
                known = self._prompts.all
                self._require_new(imported, [one for one in prompt_ids if former[one] or one in known])
            for name in {name for files in former.values() for name in files} - changes.names:
                await changes.add_prompt_file(name, None)
            voice_ids = [voice.voice_id for voice in imported.voices]
            async with self._sessions.begin() as session:
                if overwrite:
                    await session.execute(delete(VoiceAnchor).where(VoiceAnchor.voice_id.in_(voice_ids)))
                for row in imported.rows:
                    if overwrite or (isinstance(row, VoiceMapping) and row.voice_id in BUILT_IN):
                        await upsert(session, row)
                    elif not await insert_new(session, row):
                        raise _just_added()
                await changes.apply()
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

    async def _write(self, manifest: Manifest) -> BinaryIO:
        file = await asyncio.to_thread(self._recordings.spool)
        try:
            with ExitStack() as stack:
                archive = await asyncio.to_thread(
                    stack.enter_context, library_archive.writing(file, manifest)
                )
                for entry in manifest.files:
                    await asyncio.to_thread(archive.add, entry, await self._content(entry))
                await asyncio.to_thread(stack.close)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    async def _content(self, entry: FileEntry) -> bytes:
        if isinstance(entry, RecordingEntry):
            prompt = self._prompts.all.get(entry.prompt_id)
            if prompt is None or prompt.digest != entry.sha256:
                raise Conflict(f"Audio prompt {entry.prompt_id!r} has changed during the export; try again")
            return await self._recordings.read(prompt)
        anchor = self._anchors.all.get(entry.voice_id)
        if anchor is None or anchor.digest != entry.sha256:
            raise Conflict(f"The anchor of voice {entry.voice_id!r} has changed during the export; try again")
        return await self._anchors.content(anchor)

    async def _anchor_entry(self, anchor: Anchor) -> AnchorEntry:
        return anchor_entry(anchor, len(await self._anchors.content(anchor)))


def _just_added() -> Conflict:
    return Conflict(
        f"{FIELD}: another server has just added one of the voices or recordings; replace=true replaces it",
        param=FIELD,
    )


def _digests(prompt: Prompt | AudioPrompt) -> str:
    """Return the digests of a prompt's files, by which the database and the folder agree."""
    return f"{prompt.digest} {prompt.sidecar_digest}"
