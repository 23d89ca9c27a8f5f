"""The folder of audio prompts: `{id}.wav`, and what people put beside it.

Nothing outside of it is read or written: names come from checked ids or from the folder's own listing,
and links are not followed. All methods block.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Literal

import structlog

from dia_server.audio import prompt
from dia_server.errors import Invalid, PromptNotUsable, UnusableAudio
from dia_server.services.durable_files import TEMPORARY_FILES
from dia_server.services.voices import ids
from dia_server.text.speakers import clean_transcript

log = structlog.get_logger()

AUDIO = {".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".webm", ".aiff", ".aif"}
MAX_AUDIO = 200 * 1024 * 1024
MAX_TEXT = 16 * 1024
"""Bytes."""
RESERVED = {"discover", "metadata", "upload"}
"""Ids that would collide with the API's paths."""

Source = Literal["reference", "txt"]
SIDECARS: dict[Source, str] = {"reference": ".reference.txt", "txt": ".txt"}
"""Transcript files, the one that counts first."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    source: Source
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.source} {self.text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that looks like a prompt and cannot be one."""

    file_name: str
    reason: str


def check_id(prompt_id: str) -> None:
    """Raise Invalid where `prompt_id` cannot name a prompt."""
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


class PromptFolder:
    def __init__(self, path: Path, make: Callable[[BinaryIO], bytes]) -> None:
        """`make` brings any audio file into the form of a prompt; it raises UnusableAudio."""
        self.path = path
        self.make = make

    def prepare(self) -> None:
        """Create the folder and clear away what changes that a power failure cut short have left."""
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(TEMPORARY_FILES):
            leftover.unlink()

    def spool(self) -> BinaryIO:
        """Open a nameless file on the folder's disk, gone when it is closed or the server dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self.path, prefix=".", suffix=".tmp")

    def recordings(self) -> tuple[dict[str, list[str]], list[Skipped]]:
        """List the audio files of each id, the best first: the one written last, since who drops in
        an MP3 beside a WAV wants it to be used."""
        found: dict[str, list[tuple[int, bool, str]]] = {}
        skipped = []
        with os.scandir(self.path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                prompt_id, extension = os.path.splitext(entry.name)
                if entry.name.startswith(".") or extension.lower() not in AUDIO:
                    continue
                shown = entry.name.encode(errors="replace").decode()  # a name may be in any encoding
                try:
                    check_id(prompt_id)
                except Invalid as error:
                    skipped.append(Skipped(shown, str(error)))
                    continue
                if not entry.is_file(follow_symlinks=False):
                    skipped.append(Skipped(shown, "it is a link or a folder, not a file"))
                    continue
                age = entry.stat(follow_symlinks=False).st_mtime_ns
                is_wav = entry.name == wav_name(prompt_id)
                found.setdefault(prompt_id, []).append((age, is_wav, entry.name))
        return {
            prompt_id: [name for *_, name in sorted(files, reverse=True)]
            for prompt_id, files in found.items()
        }, skipped

    def files_of(self, prompt_id: str) -> list[str]:
        """List every file that belongs to a prompt: its audio in whatever format, its transcripts."""
        texts = {prompt_id + suffix for suffix in SIDECARS.values()}
        return [
            name
            for name in os.listdir(self.path)
            if name in texts
            or (name[: len(prompt_id)] == prompt_id and name[len(prompt_id) :].lower() in AUDIO)
        ]

    def open(self, name: str) -> BufferedReader:
        """Open a file for reading; raises OSError where it is missing, a link or no plain file."""
        file = open(self.path / name, "rb", opener=_open_no_link)  # noqa: SIM115 - the caller's to close
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            file.close()
            raise OSError(f"{name} is not a file")
        return file

    def has(self, name: str) -> bool:
        try:
            return stat.S_ISREG((self.path / name).lstat().st_mode)
        except FileNotFoundError:
            return False

    def recording(self, name: str, known: str | None) -> tuple[bytes, bool] | None:
        """Read an audio file as a prompt's WAV file, and tell whether it is that already.

        Returns None where the file's SHA-256 is `known`. Raises UnusableAudio and OSError.
        """
        with self.open(name) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_AUDIO:
                raise UnusableAudio(f"the file has {size:,} bytes; the limit is {MAX_AUDIO:,}")
            if known is not None and hashlib.file_digest(file, "sha256").hexdigest() == known:
                return None
            file.seek(0)
            if name.endswith(".wav") and size <= prompt.MAX_SIZE and prompt.is_made(raw := file.read()):
                return raw, True
            file.seek(0)
            return self.make(file), False

    def read_stored(self, prompt_id: str, digest: str) -> bytes:
        """Return a prompt's WAV file; raises PromptNotUsable unless its SHA-256 is `digest`."""
        try:
            with self.open(wav_name(prompt_id)) as file:
                stored = file.read(prompt.MAX_SIZE)
        except OSError as error:
            raise PromptNotUsable(
                f"The file of audio prompt {prompt_id!r} cannot be read: {error.strerror or error}"
            ) from error
        if hashlib.sha256(stored).hexdigest() != digest:
            raise PromptNotUsable(
                f"The file of audio prompt {prompt_id!r} has changed; "
                "POST /audio_prompts/discover reads it again"
            )
        return stored

    def sidecars(self, prompt_id: str) -> list[Sidecar]:
        """Read the transcripts that lie beside a prompt, the one that counts first."""
        found = []
        for source, suffix in SIDECARS.items():
            try:
                with self.open(prompt_id + suffix) as file:
                    raw = file.read(MAX_TEXT + 1)
                if len(raw) > MAX_TEXT:
                    raise ValueError(f"it has more than {MAX_TEXT} bytes")
                text = clean_transcript(raw.decode("utf-8-sig"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                log.warning("transcript file ignored", file=prompt_id + suffix, cause=str(error))
                continue
            if text:
                found.append(Sidecar(source, text))
        return found


def _open_no_link(path: str, flags: int) -> int:
    # the second flag: opening a pipe would wait for somebody to write
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
