"""Audio prompts: recordings that voices are cloned from. Metadata is in the database.

A transcript from the API or from Whisper is removed when its recording is replaced; a transcript file
that the operator put into the folder is kept.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, TypeVar

import structlog
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from dia_server.audio import prompt as audio
from dia_server.db.models import AudioPrompt
from dia_server.db.upsert import insert_new, upsert
from dia_server.errors import Conflict, Invalid, NotFound, ServerError, StorageUnavailable, UnusableAudio
from dia_server.services.voices import prompt_folder
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.file_commit import committing
from dia_server.services.voices.prompt_folder import PromptFolder, Sidecar, Skipped, txt_name, wav_name
from dia_server.services.voices.recordings import Recordings
from dia_server.services.voices.service import VoiceService, Write
from dia_server.services.voices.transcription import Confidence
from dia_server.text.speakers import clean_transcript

log = structlog.get_logger()

T = TypeVar("T")

DECODERS = 2
"""Maximum recordings decoded at the same time."""
ATTEMPTS = 3
"""Maximum attempts at a change; after each that fails, another server has just changed the same prompt."""
OWN_SOURCES = {"manual", "whisper_auto"}
"""Transcript sources whose text this server writes to `{id}.txt`."""


class _Stale(Exception):
    """Another server has changed a prompt's row, and memory has the former one."""

    def __init__(self, prompt_id: str, stored: Prompt | None) -> None:
        super().__init__(prompt_id)
        self.prompt_id = prompt_id
        self.stored = stored
        """The prompt in the database, None if there is none."""


class PromptService:
    """Reads prompts from memory. A change is applied to files, database and memory, or to none of them.

    Each writes the whole row, and therefore only if the row is the one in memory: another server may have
    changed it a moment ago. If it has, memory gets the row, and the change is tried again.
    """

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], recordings: Recordings, voices: VoiceService
    ) -> None:
        self._sessions = sessions
        self._recordings = recordings
        self._folder = recordings.folder
        self._voices = voices
        self._prompts: dict[str, Prompt] = {}
        self._lock = asyncio.Lock()
        """Held while a prompt changes, but not while audio is decoded."""
        # separate from the default executor: decoding hours of MP3 must not block file reads
        self._decoders = ThreadPoolExecutor(DECODERS, "decode")

    async def load(self) -> None:
        """Load the metadata of all prompts, at the start and after another server's change."""
        async with self._lock, self._sessions() as session:
            rows = await session.scalars(select(AudioPrompt).order_by(AudioPrompt.created_at))
            self._prompts = {row.prompt_id: Prompt.of(row) for row in rows}

    async def clean(self) -> None:
        """Remove what a crash left, and recordings without a row in a storage; raises StorageUnavailable."""

        async def digests() -> set[str]:
            async with self._sessions() as session:
                return set(await session.scalars(select(AudioPrompt.digest)))

        await self._recordings.clean(digests)

    @property
    def all(self) -> Mapping[str, Prompt]:
        return MappingProxyType(self._prompts)

    def get(self, prompt_id: str) -> Prompt:
        if (prompt := self._prompts.get(prompt_id)) is None:
            raise NotFound(
                f"Audio prompt {prompt_id!r} does not exist; GET /audio_prompts lists them", param="prompt_id"
            )
        return prompt

    async def recording(self, prompt_id: str) -> tuple[int, AsyncIterator[bytes]]:
        """Return the size of a prompt's WAV file in bytes, and an iterator over its content.

        Raises NotFound if the prompt does not exist or its file cannot be read, or StorageUnavailable.
        Exhaust or close the iterator: it may keep the file open.
        """
        try:
            return await self._recordings.open(self.get(prompt_id))
        except OSError as error:
            raise NotFound(f"The recording of {prompt_id!r} cannot be read: {error.strerror}") from error

    async def add(self, prompt_id: str, file: BinaryIO, transcript: str | None = None) -> Prompt:
        """Create the prompt `prompt_id` from a recording, or replace the existing one.

        Raises Invalid, UnusableAudio, NativeUnavailable or StorageUnavailable, or Conflict if other servers
        keep changing it, and then changes nothing.
        """
        prompt_folder.check_id(prompt_id)
        text = None if transcript is None else _clean_transcript(transcript)
        wav = await self._decode(self._recordings.make, file)
        async with self._lock:
            return await self._up_to_date(
                lambda: self._store_recording(prompt_id, wav, is_stored=False, text=text)
            )

    async def create(
        self,
        prompt_id: str,
        file: BinaryIO,
        transcript: str | None,
        *,
        consent: str,
        adding: AbstractAsyncContextManager[Write],
    ) -> Prompt:
        """Create a prompt together with its voice, which `VoiceService.adding` adds, or neither of them.

        Raises as `add` and `adding`, and Conflict if a prompt or a file in the folder has this id.
        """
        prompt_folder.check_id(prompt_id)
        text = None if transcript is None else _clean_transcript(transcript)
        wav = await self._decode(self._recordings.make, file)
        async with self._lock, adding as write:

            async def store() -> Prompt:
                await self._require_new(prompt_id)
                return await self._store_recording(
                    prompt_id, wav, is_stored=False, text=text, consent=consent, also=write
                )

            return await self._up_to_date(store)

    @asynccontextmanager
    async def importing(self) -> AsyncIterator[dict[str, Prompt]]:
        """Add or replace prompts in a transaction of the caller, who also writes their files.

        Yields an empty dictionary for the prompts by id. They exist once the `with` block has ended.
        """
        async with self._lock:
            imported: dict[str, Prompt] = {}
            yield imported
            self._prompts |= imported

    async def convert(self, recording: bytes) -> bytes:
        """Return the WAV file of a prompt made of `recording`, but create no prompt.

        Raises UnusableAudio, NativeUnavailable or StorageUnavailable.
        """
        try:
            return await self._decode(self._recordings.convert, recording)
        except OSError as error:
            raise StorageUnavailable(f"The recording cannot be decoded: {error.strerror}") from error

    async def delete(self, prompt_id: str) -> None:
        """Delete a prompt and all its files.

        Raises NotFound or StorageUnavailable; Conflict if a voice uses the prompt.
        """
        async with self._lock:
            await self._delete(prompt_id, self.users(prompt_id), _delete_row(prompt_id))

    async def delete_with_voice(self, prompt_id: str, voice_id: str) -> None:
        """Delete a prompt and the only voice that uses it, or neither of them.

        Raises as `delete` and `VoiceService.deleting`.
        """
        async with self._lock, self._voices.deleting(voice_id) as write:

            async def delete_both(session: AsyncSession) -> None:
                await _delete_row(prompt_id)(session)
                await write(session)

            others = [user for user in self.users(prompt_id) if user != voice_id]
            await self._delete(prompt_id, others, delete_both)

    def users(self, prompt_id: str) -> list[str]:
        """Return the ids of the voices that use a prompt."""
        return [voice.voice_id for voice in self._voices.all.values() if voice.audio_prompt == prompt_id]

    async def set_transcript(
        self,
        prompt: Prompt,
        text: str,
        source: Literal["manual", "whisper_auto"],
        confidence: Confidence | None = None,
        *,
        needs_review: bool = False,
    ) -> Prompt:
        """Store the transcript of `prompt` in the database and, if there is a folder, as `{id}.txt`.

        A transcript that needs review is stored in the database only, because a file counts as a person's.
        Raises Conflict if the recording has changed since `prompt` was read. For a transcript by Whisper, a
        change of any field raises Conflict. Also raises NotFound, Invalid and StorageUnavailable.
        """
        text = _clean_transcript(text)

        async def store() -> Prompt:
            now = self.get(prompt.prompt_id)
            if now.digest != prompt.digest or (source == "whisper_auto" and now != prompt):
                raise _changed(prompt.prompt_id)
            sidecars = await self._sidecars(prompt.prompt_id)
            if needs_review:
                return await self._save(*_with_draft(now, text, confidence, sidecars))
            changed, files = _with_transcript(now, text, source, sidecars)
            return await self._save(replace(changed, confidence=confidence), files)

        async with self._lock:
            return await self._up_to_date(store)

    async def discover(self) -> list[Skipped]:
        """Add, update and remove prompts to match the folder, if there is one; return its unusable files.

        Raises StorageUnavailable.
        """
        if (folder := self._folder) is None:
            return []
        try:
            found, skipped = await asyncio.to_thread(folder.recordings)
        except OSError as error:
            raise _unreadable(error) from error
        for prompt_id, names in found.items():
            skipped += await self._read_best(folder, prompt_id, names)
        for prompt_id in self._prompts.keys() - found.keys():
            async with self._lock:  # the lock: an upload may have finished since the listing
                if not await asyncio.to_thread(folder.has, wav_name(prompt_id)):
                    await self._remove_row(prompt_id)
        for skip in skipped:
            log.warning("audio prompt skipped", file=skip.file_name, cause=skip.reason)
        return skipped

    async def _read_best(self, folder: PromptFolder, prompt_id: str, names: list[str]) -> list[Skipped]:
        """Load the prompt from the first usable file of `names`; return the unusable files before it.

        If the audio of `{id}.wav` is unusable, the prompt is removed first, unless it has changed meanwhile.
        """
        skipped = []
        for name in names:
            old = self._prompts.get(prompt_id)
            try:
                await self._read(folder, prompt_id, name)
            except (ServerError, OSError) as error:
                skipped.append(Skipped(name, getattr(error, "strerror", None) or str(error)))
                if isinstance(error, UnusableAudio) and name == wav_name(prompt_id):
                    async with self._lock:
                        if self._prompts.get(prompt_id) == old:
                            await self._remove_row(prompt_id)
            else:
                break
        return skipped

    async def _read(self, folder: PromptFolder, prompt_id: str, name: str) -> None:
        old = self._prompts.get(prompt_id)
        known = old.digest if old is not None and name == wav_name(prompt_id) else None
        read = await self._decode(folder.recording, name, known)

        async def store() -> None:
            if self._prompts.get(prompt_id) != old:
                return  # a concurrent upload or deletion is newer than what was read
            if read is not None:
                await self._store_recording(prompt_id, read[0], is_stored=read[1])
            elif old is not None:
                await self._refresh_transcript(old)

        async with self._lock:
            await self._up_to_date(store)

    async def _delete(self, prompt_id: str, users: list[str], write: Write) -> None:
        """Delete a prompt's files and, by `write`, its row; raises Conflict if `users` is not empty."""
        self.get(prompt_id)
        if users:
            raise Conflict(
                f"Audio prompt {prompt_id!r} is used by {', '.join(map(repr, users))}; "
                "delete or change these voice mappings first",
                param="prompt_id",
            )
        await self._commit(dict.fromkeys(await self.files_of(prompt_id)), write)
        del self._prompts[prompt_id]

    async def _require_new(self, prompt_id: str) -> None:
        """Raise Conflict if a prompt, or a file in the folder, is named `prompt_id`."""
        lower = prompt_id.lower()
        if any(other.lower() == lower for other in self._prompts) or await self.files_of(prompt_id):
            raise Conflict(
                f"Audio prompt {prompt_id!r} exists already; delete it first, or choose another name",
                param="prompt_id",
            )

    async def _sidecars(self, prompt_id: str) -> list[Sidecar]:
        return [] if self._folder is None else await asyncio.to_thread(self._folder.sidecars, prompt_id)

    async def files_of(self, prompt_id: str) -> list[str]:
        """Return the names of all files of a prompt in the folder; raises StorageUnavailable."""
        try:
            return [] if self._folder is None else await asyncio.to_thread(self._folder.files_of, prompt_id)
        except OSError as error:
            raise _unreadable(error) from error

    async def _decode(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    async def _store_recording(
        self,
        prompt_id: str,
        wav: bytes,
        *,
        is_stored: bool,
        text: str | None = None,
        consent: str | None = None,
        also: Write | None = None,
    ) -> Prompt:
        """Store `wav` as the recording of a prompt, and the rows that `also` writes.

        `is_stored` means that `{id}.wav` has this content already. `text` and `consent` are the client's, if
        any.
        """
        old = self._prompts.get(prompt_id)
        digest = hashlib.sha256(wav).hexdigest()
        files: dict[str, bytes | None] = {} if is_stored else {wav_name(prompt_id): wav}
        sidecars = await self._sidecars(prompt_id)
        if old is not None and old.digest == digest:
            prompt = old
        else:
            prompt = _without_transcript(prompt_id, digest, wav, old, consent)
            files |= {} if old is None else _take_own(old, sidecars)
        prompt = _with_sidecar(prompt, sidecars)
        if text is not None:
            prompt, sidecar = _with_transcript(prompt, text, "manual", sidecars)
            files |= sidecar
        return await self._save(prompt, files, also)

    async def _refresh_transcript(self, prompt: Prompt) -> None:
        """Read the prompt's transcript file; store its text if that is new or has changed."""
        sidecars = await self._sidecars(prompt.prompt_id)
        if (changed := _with_sidecar(prompt, sidecars)) != prompt:
            await self._save(changed, {})

    async def _up_to_date(self, change: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `change`; load a row that it finds changed, and try it again.

        Raises Conflict if each of ATTEMPTS finds the row changed.
        """
        for _ in range(ATTEMPTS):
            try:
                return await change()
            except _Stale as stale:
                prompt_id = stale.prompt_id
                self._remember(prompt_id, stale.stored)
        raise _changed(prompt_id)

    def _remember(self, prompt_id: str, stored: Prompt | None) -> None:
        if stored is None:
            self._prompts.pop(prompt_id, None)
        else:
            self._prompts[prompt_id] = stored

    async def _save(
        self, prompt: Prompt, files: Mapping[str, bytes | None], also: Write | None = None
    ) -> Prompt:
        """Store a prompt and its files; raises _Stale if its row is not the one in memory."""

        async def write(session: AsyncSession) -> None:
            if await self._require_known(session, prompt.prompt_id):
                await upsert(session, prompt.row())
            elif not await insert_new(session, prompt.row()):
                raise _Stale(prompt.prompt_id, await _stored(session, prompt.prompt_id))
            if also is not None:
                await also(session)

        await self._commit(files, write)
        self._prompts[prompt.prompt_id] = prompt
        return prompt

    async def _remove_row(self, prompt_id: str) -> None:
        """Delete a prompt's row, if there is one, unless another server has changed it."""

        async def write(session: AsyncSession) -> None:
            await self._require_known(session, prompt_id)
            await _delete_row(prompt_id)(session)

        if prompt_id in self._prompts:
            try:
                await self._commit({}, write)
            except _Stale as stale:
                self._remember(prompt_id, stale.stored)
            else:
                del self._prompts[prompt_id]

    async def _require_known(self, session: AsyncSession, prompt_id: str) -> bool:
        """Lock the row of a prompt; return whether there is one. Raises _Stale if memory has another."""
        stored = await _stored(session, prompt_id)
        if stored != self._prompts.get(prompt_id):
            raise _Stale(prompt_id, stored)
        return stored is not None

    async def _commit(
        self,
        files: Mapping[str, bytes | None],
        write: Write,
    ) -> None:
        """Change `files` and, by `write`, the database row, or neither; raises StorageUnavailable."""
        change = self._recordings.change()
        async with committing(change, files, self._sessions, "audio prompt") as session:
            await write(session)


def _without_transcript(
    prompt_id: str, digest: str, wav: bytes, old: Prompt | None, consent: str | None
) -> Prompt:
    """Return the metadata of the recording `wav` of SHA-256 `digest`, which replaces that of `old`."""
    return Prompt(
        prompt_id=prompt_id,
        digest=digest,
        duration=audio.duration(wav),
        file_size=len(wav),
        transcript=None,
        transcript_source=None,
        sidecar_digest=None,
        confidence=None,
        needs_review=False,
        created_at=datetime.now(UTC) if old is None else old.created_at,
        consent=consent,
    )


def _take_own(prompt: Prompt, sidecars: list[Sidecar]) -> dict[str, bytes | None]:
    """Remove the file that the server wrote for `prompt` from `sidecars`; return it as one to delete."""
    own = Sidecar("txt", prompt.transcript or "")
    if prompt.transcript_source not in OWN_SOURCES or own not in sidecars:
        return {}
    sidecars.remove(own)
    return {txt_name(prompt.prompt_id): None}


def _with_sidecar(prompt: Prompt, sidecars: list[Sidecar]) -> Prompt:
    """Return `prompt` with the first of `sidecars` as transcript, unless that was read or written before."""
    if not sidecars or sidecars[0].digest == prompt.sidecar_digest:
        return prompt
    return replace(
        prompt,
        transcript=sidecars[0].text,
        transcript_source=sidecars[0].source,
        sidecar_digest=sidecars[0].digest,
        confidence=None,
        needs_review=False,
    )


def _with_draft(
    prompt: Prompt, text: str, confidence: Confidence | None, sidecars: list[Sidecar]
) -> tuple[Prompt, dict[str, bytes | None]]:
    """Return `prompt` with a transcript by Whisper that needs review, and the file to delete, if any."""
    files = _take_own(prompt, sidecars)
    prompt = replace(
        prompt,
        transcript=text,
        transcript_source="whisper_auto",
        sidecar_digest=sidecars[0].digest if sidecars else None,
        confidence=confidence,
        needs_review=True,
    )
    return prompt, files


def _clean_transcript(text: str) -> str:
    """Return the normalised transcript; raises Invalid if it has nothing but speaker tags."""
    if not (text := clean_transcript(text)):
        raise Invalid("transcript contains no spoken words", param="transcript")
    return text


def _with_transcript(
    prompt: Prompt, text: str, source: Literal["manual", "whisper_auto"], sidecars: list[Sidecar]
) -> tuple[Prompt, dict[str, bytes | None]]:
    """Return `prompt` with the transcript `text`, and the file to write for it (name to content)."""
    counts = next((sidecar for sidecar in sidecars if sidecar.source == "reference"), Sidecar("txt", text))
    prompt = replace(
        prompt,
        transcript=text,
        transcript_source=source,
        sidecar_digest=counts.digest,
        confidence=None,
        needs_review=False,
    )
    return prompt, {txt_name(prompt.prompt_id): f"{text}\n".encode()}


async def _stored(session: AsyncSession, prompt_id: str) -> Prompt | None:
    """Return a prompt as the database has it, and lock its row; None if there is none."""
    row = await session.get(AudioPrompt, prompt_id, with_for_update=True)
    return None if row is None else Prompt.of(row)


def _delete_row(prompt_id: str) -> Write:
    async def write(session: AsyncSession) -> None:
        await session.execute(delete(AudioPrompt).where(AudioPrompt.prompt_id == prompt_id))

    return write


def _changed(prompt_id: str) -> Conflict:
    return Conflict(f"Audio prompt {prompt_id!r} has changed during the request", param="prompt_id")


def _unreadable(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"The folder of audio prompts cannot be read: {error.strerror}")
