"""The folder of audio prompts: `{id}.wav`, and files that the operator adds (audio, transcripts).

Nothing outside the folder is read or written: names come from validated ids or from the folder's own
listing, and symbolic links are not followed. Methods that are not coroutines block.
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Literal

import structlog

from dia_server.audio import prompt
from dia_server.errors import Invalid, PromptNotUsable, UnusableAudio
from dia_server.services.durable_files import (
    TEMPORARY_FILES,
    FileChange,
    RecoverableChange,
    read_chunks,
    read_journal,
    remove_journal,
    remove_old,
    undo,
)
from dia_server.services.file_change import FolderChange
from dia_server.services.object_folder import Names
from dia_server.services.voices import ids
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.spool import Spool
from dia_server.text.speakers import clean_transcript
from dia_server.units import MIB

log = structlog.get_logger()

AUDIO = {".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".webm", ".aiff", ".aif"}
MAX_AUDIO = 200 * MIB
"""Maximum bytes of an audio file in the folder."""
MAX_TEXT = 16 * 1024
"""Maximum bytes of a transcript file."""
RESERVED = {"discover", "metadata", "upload"}
"""Ids that would collide with routes of the API."""

Source = Literal["reference", "txt"]
SIDECARS: dict[Source, str] = {"reference": ".reference.txt", "txt": ".txt"}
"""Suffixes of transcript files, in order of precedence."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    source: Source
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.source} {self.text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Skipped:
    """An audio file in the folder that cannot be used as a prompt."""

    file_name: str
    reason: str


def check_id(prompt_id: str) -> None:
    """Raise Invalid if `prompt_id` is malformed or reserved."""
    ids.check(prompt_id, "prompt_id")
    lower = prompt_id.lower()
    if lower in RESERVED or lower.endswith(".reference"):
        raise Invalid(
            f"prompt_id must not be {', '.join(sorted(RESERVED))}, nor end in '.reference'", param="prompt_id"
        )


def wav_name(prompt_id: str) -> str:
    return f"{prompt_id}.wav"


def txt_name(prompt_id: str) -> str:
    return prompt_id + SIDECARS["txt"]


class PromptFolder(Spool):
    def __init__(self, path: Path, make: Callable[[BinaryIO], bytes], *, grace_s: float = 0.0) -> None:
        """`make`: see Spool. Temporary files younger than `grace_s` seconds may be another server's."""
        super().__init__(path, make)
        self._grace_s = grace_s

    @property
    def folder(self) -> "PromptFolder":
        return self

    def change(self) -> FolderChange:
        return FolderChange(FileChange(self.path))

    def importing(self) -> FolderChange:
        return FolderChange(RecoverableChange(self.path))

    async def open(self, prompt: Prompt) -> tuple[int, AsyncIterator[bytes]]:
        file = await asyncio.to_thread(self._open, wav_name(prompt.prompt_id))
        return os.fstat(file.fileno()).st_size, read_chunks(file)

    async def read(self, prompt: Prompt) -> bytes:
        return await asyncio.to_thread(self._read_stored, prompt)

    async def clean(self, digests: Names) -> None:
        """Create the folder and remove temporary files left by a crash."""

        def clean() -> None:
            self.path.mkdir(parents=True, exist_ok=True)
            remove_old(self.path.glob(TEMPORARY_FILES), self._grace_s)

        with suppress(OSError):  # the server can still read a folder that it cannot write
            await asyncio.to_thread(clean)

    async def recover(self, stored: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        journal = await asyncio.to_thread(read_journal, self.path)
        if journal is None:
            return
        if journal.committed.items() <= (await stored()).items():
            await asyncio.to_thread(remove_journal, self.path)
        else:
            await asyncio.to_thread(undo, self.path, journal)
            log.warning("interrupted import undone", audio_prompts=sorted(journal.committed))

    def recordings(self) -> tuple[dict[str, list[str]], list[Skipped]]:
        """Map each id to the names of its audio files, and list the files that cannot be prompts.

        Each id's files are sorted newest first: an MP3 added beside an older WAV file is meant to replace it.
        """
        found: dict[str, list[tuple[int, bool, str]]] = {}
        skipped = []
        with os.scandir(self.path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                prompt_id, extension = os.path.splitext(entry.name)
                if entry.name.startswith(".") or extension.lower() not in AUDIO:
                    continue
                shown = entry.name.encode(errors="replace").decode()  # file names may be in any encoding
                try:
                    check_id(prompt_id)
                except Invalid as error:
                    skipped.append(Skipped(shown, str(error)))
                    continue
                if not entry.is_file(follow_symlinks=False):
                    skipped.append(Skipped(shown, "not a regular file, but a link or a folder"))
                    continue
                age = entry.stat(follow_symlinks=False).st_mtime_ns
                is_wav = entry.name == wav_name(prompt_id)
                found.setdefault(prompt_id, []).append((age, is_wav, entry.name))
        return {
            prompt_id: [name for *_, name in sorted(files, reverse=True)]
            for prompt_id, files in found.items()
        }, skipped

    def files_of(self, prompt_id: str) -> list[str]:
        """List every file of a prompt: audio in any format and transcripts."""
        texts = {prompt_id + suffix for suffix in SIDECARS.values()}
        return [
            name
            for name in os.listdir(self.path)
            if name in texts
            or (name[: len(prompt_id)] == prompt_id and name[len(prompt_id) :].lower() in AUDIO)
        ]

    def has(self, name: str) -> bool:
        try:
            return stat.S_ISREG((self.path / name).lstat().st_mode)
        except FileNotFoundError:
            return False

    def recording(self, name: str, known: str | None) -> tuple[bytes, bool] | None:
        """Return the prompt's WAV bytes made from file `name`, and whether the file has just these bytes.

        Returns None, without decoding, if the file's SHA-256 is `known`. Raises UnusableAudio and OSError.
        """
        with self._open(name) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_AUDIO:
                raise UnusableAudio(
                    f"the file has {size:,} bytes; the limit is {MAX_AUDIO:,}", limit=MAX_AUDIO
                )
            if known is not None and hashlib.file_digest(file, "sha256").hexdigest() == known:
                return None
            file.seek(0)
            if name.endswith(".wav") and size <= prompt.MAX_SIZE and prompt.is_made(raw := file.read()):
                return raw, True
            file.seek(0)
            return self.make(file), False

    def sidecars(self, prompt_id: str) -> list[Sidecar]:
        """Read the transcript files of a prompt, in order of precedence; skip and log invalid ones."""
        found = []
        for source, suffix in SIDECARS.items():
            try:
                with self._open(prompt_id + suffix) as file:
                    raw = file.read(MAX_TEXT + 1)
                if len(raw) > MAX_TEXT:
                    raise ValueError(f"more than {MAX_TEXT} bytes")
                text = clean_transcript(raw.decode("utf-8-sig"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                log.warning("transcript file ignored", file=prompt_id + suffix, cause=str(error))
                continue
            if text:
                found.append(Sidecar(source, text))
        return found

    def _open(self, name: str) -> BufferedReader:
        """Open a file for reading; raises OSError if it is missing, a link or not a regular file."""
        file = open(self.path / name, "rb", opener=_open_no_link)  # noqa: SIM115 - the caller closes it
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            file.close()
            raise OSError(f"{name} is not a regular file")
        return file

    def _read_stored(self, stored: Prompt) -> bytes:
        try:
            with self._open(wav_name(stored.prompt_id)) as file:
                content = file.read(prompt.MAX_SIZE)
        except OSError as error:
            raise PromptNotUsable(
                f"The file of audio prompt {stored.prompt_id!r} cannot be read: {error.strerror or error}"
            ) from error
        if hashlib.sha256(content).hexdigest() != stored.digest:
            raise PromptNotUsable(
                f"The file of audio prompt {stored.prompt_id!r} has changed; "
                "POST /audio_prompts/discover reads it again"
            )
        return content


def _open_no_link(path: str, flags: int) -> int:
    # O_NONBLOCK: opening a named pipe would block until a writer connects
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
