"""The manifest of a voice library, and its entries as voices, prompts and anchors."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from dia_server.audio import prompt as audio
from dia_server.errors import Invalid, UnusableAudio
from dia_server.services.voices import ids, prompt_folder
from dia_server.services.voices.anchor_file import SUFFIX, unpack
from dia_server.services.voices.anchors import Anchor
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.prompt_folder import MAX_AUDIO, Sidecar
from dia_server.services.voices.service import BUILT_IN, Speaker, Voice, clean_name
from dia_server.text.speakers import clean_transcript
from dia_server.units import MIB

FORMAT = 1
"""Version of the manifest."""
MANIFEST = "library.json"
FIELD = "file"
"""Request field that errors name."""
MAX_SIZE = MAX_AUDIO
"""Maximum bytes of an archive, and of all its files unpacked."""
MAX_VOICES = 1000
"""Maximum voices, recordings and anchors, each."""
MAX_MANIFEST = 8 * MIB
MAX_TRANSCRIPT = 16 * 1024
"""Maximum characters of a transcript."""
MAX_LICENCE = 2000
"""Maximum characters of a licence note, which a URL has to hold."""
MAX_CONSENT = 16 * 1024
"""Maximum characters of a statement of consent."""
NUL = b"\\u0000"
"""Escape sequence of NUL in JSON, the only valid form of NUL there."""

T = TypeVar("T")

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Size = Annotated[int, Meta(ge=1, le=MAX_SIZE)]


class VoiceEntry(Struct, kw_only=True, forbid_unknown_fields=True):
    voice_id: Id
    style: Annotated[str, Meta(min_length=1, max_length=64)]
    primary_speaker: Speaker
    audio_prompt: Id | None
    audio_prompt_transcript: Annotated[str, Meta(max_length=MAX_TRANSCRIPT)] | None
    display_name: str | None
    partner: Id | None


class RecordingEntry(Struct, kw_only=True, forbid_unknown_fields=True):
    prompt_id: Id
    sha256: Sha256
    size: Size
    transcript: Annotated[str, Meta(min_length=1, max_length=MAX_TRANSCRIPT)] | None
    transcript_source: Literal["manual", "whisper_auto"] | None
    consent: Annotated[str, Meta(max_length=MAX_CONSENT)] | None
    needs_review: bool = False
    """Whether the transcript is a draft by Whisper, which is not written to a file."""

    @property
    def name(self) -> str:
        return f"recordings/{self.prompt_id}.wav"


class AnchorEntry(Struct, kw_only=True, forbid_unknown_fields=True):
    voice_id: Id
    sha256: Sha256
    size: Size
    faults: Annotated[list[Annotated[str, Meta(pattern="^[a-z_]{1,32}$")]], Meta(max_length=16)]
    pitch: Annotated[float, Meta(ge=0)] | None
    word_errors: Annotated[float, Meta(ge=0)] | None

    @property
    def name(self) -> str:
        return f"anchors/{self.voice_id}{SUFFIX}"


FileEntry = RecordingEntry | AnchorEntry


class Manifest(Struct, kw_only=True, forbid_unknown_fields=True):
    format: int = FORMAT
    licence: Annotated[str, Meta(max_length=MAX_LICENCE)] | None
    """Note about the terms of use, as it was given to the export."""
    voices: Annotated[list[VoiceEntry], Meta(max_length=MAX_VOICES)]
    recordings: Annotated[list[RecordingEntry], Meta(max_length=MAX_VOICES)]
    anchors: Annotated[list[AnchorEntry], Meta(max_length=MAX_VOICES)]

    @property
    def files(self) -> list[FileEntry]:
        return [*self.recordings, *self.anchors]


class _Format(Struct):
    format: int


def refusal(message: str, *, limit: float | None = None) -> Invalid:
    return Invalid(f"{FIELD}: {message}", param=FIELD, limit=limit)


def decode(manifest: bytes) -> Manifest:
    """Return the manifest in a file; raises Invalid."""
    if NUL in manifest:
        raise refusal(f"{MANIFEST} has a NUL character, which databases cannot store")
    if (found := _parse(manifest, _Format).format) != FORMAT:
        raise refusal(f"{MANIFEST} has format {found}; this server reads format {FORMAT}")
    return _parse(manifest, Manifest)


def _parse(manifest: bytes, expected: type[T]) -> T:
    try:
        return msgspec.json.decode(manifest, type=expected)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise refusal(f"{MANIFEST} cannot be read: {error}") from error


def voice_entry(voice: Voice, exported: Sequence[str]) -> VoiceEntry:
    partner = voice.partner if voice.partner in {*exported, *BUILT_IN} else None
    return VoiceEntry(**asdict(replace(voice, partner=partner)))


def recording_entry(prompt: Prompt) -> RecordingEntry:
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


def voice_of(entry: VoiceEntry) -> Voice:
    """Return the voice of an entry; raises Invalid."""
    voice = Voice(**msgspec.structs.asdict(entry))
    with _checking(f"voice {entry.voice_id!r}"):
        ids.check(voice.voice_id, "voice_id")
        if voice.display_name is None:
            return voice
        return replace(voice, display_name=clean_name(voice.display_name))


def transcript_of(entry: RecordingEntry) -> str | None:
    """Check the entry's id; return its transcript as one line, None if it has none. Raises Invalid."""
    with _checking(f"recording {entry.prompt_id!r}"):
        prompt_folder.check_id(entry.prompt_id)
    if entry.transcript is None:
        return None
    if not (text := clean_transcript(entry.transcript)):
        raise refusal(f"recording {entry.prompt_id!r}: transcript contains no spoken words")
    return text


def anchor_entry(anchor: Anchor, size: int) -> AnchorEntry:
    """Return the entry of an anchor whose file has `size` bytes."""
    return AnchorEntry(
        voice_id=anchor.voice_id,
        sha256=anchor.digest,
        size=size,
        faults=list(anchor.faults),
        pitch=anchor.pitch,
        word_errors=anchor.word_errors,
    )


def anchor_of(entry: AnchorEntry, content: bytes) -> Anchor:
    """Return the anchor with the file `content`; raises UnusableAudio."""
    with naming(entry):
        file = unpack(content)
    return Anchor(
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


@contextmanager
def naming(entry: FileEntry) -> Iterator[None]:
    """Name the archive and the entry in an UnusableAudio that the `with` block raises."""
    try:
        yield
    except UnusableAudio as error:
        field = FIELD
        raise UnusableAudio(f"{field}: {entry.name}: {error}", param=field, limit=error.limit) from error


@contextmanager
def _checking(what: str) -> Iterator[None]:
    """Name the archive as the field at fault in an Invalid that the `with` block raises."""
    try:
        yield
    except Invalid as error:
        raise refusal(f"{what}: {error}", limit=error.limit) from error


def prompt_of(entry: RecordingEntry, wav: bytes, text: str | None) -> Prompt:
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
