"""The file of a voice library: a ZIP archive of a manifest, recordings and anchors.

Equal voices give equal bytes. An archive from elsewhere is checked before anything in it is unpacked; its
files are never written under the names that it gives them.
"""

import hashlib
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec

from dia_server.errors import Invalid
from dia_server.services.voices.anchor_file import READ_ERRORS
from dia_server.services.voices.library_manifest import (
    MANIFEST,
    MAX_MANIFEST,
    MAX_SIZE,
    MAX_VOICES,
    FileEntry,
    Manifest,
    decode,
    refusal,
)
from dia_server.units import MIB

MAX_ENTRIES = 1 + 2 * MAX_VOICES
MAX_DIRECTORY = MIB
"""Maximum bytes of the archive's directory, which zipfile reads at once: 500 for each entry."""
MAX_EXPORT = MAX_SIZE - 2 * MIB
"""Maximum bytes of the files of an export; the rest is for the directory and the form of the upload."""
MAX_SHOWN = 100
"""Maximum characters of an entry's name that errors quote."""

_TIME = (1980, 1, 1, 0, 0, 0)
_END = struct.Struct("<4s4H2LH")
"""End of central directory record: signature, disks, entries, size and offset of the directory, comment."""
_END_SIGNATURE, _ZIP64_LOCATOR = b"PK\x05\x06", b"PK\x06\x07"
_ZIP64_LOCATOR_SIZE = 20


class Archive:
    """An archive whose directory and manifest have been checked; its files have not been read."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self._archive = archive
        self.manifest = manifest

    def content(self, entry: FileEntry) -> bytes:
        """Return the bytes of a file; raises Invalid if they do not have the manifest's size and SHA-256."""
        content = _read(self._archive, entry.name, entry.size)
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise refusal(f"{entry.name} is not the file that {MANIFEST} describes: its SHA-256 differs")
        return content


class Writer:
    """Adds the files of a manifest to an archive, in its order; blocks."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def add(self, entry: FileEntry, content: bytes) -> None:
        self._archive.writestr(zipfile.ZipInfo(entry.name, _TIME), content)


@contextmanager
def writing(file: BinaryIO, manifest: Manifest) -> Iterator[Writer]:
    """Write an archive to `file`; the `with` block adds the files of `manifest`.

    Raises Invalid if the archive would be too large to be imported.
    """
    description = msgspec.json.encode(manifest)
    total = len(description) + sum(entry.size for entry in manifest.files)
    for what, count, most in (("voices", len(manifest.voices), MAX_VOICES), ("bytes", total, MAX_EXPORT)):
        if count > most:
            raise Invalid(
                f"voice_id: choose fewer voices: the archive would have {count:,} {what}; the limit is "
                f"{most:,}",
                param="voice_id",
                limit=most,
            )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST, _TIME), description)
        yield Writer(archive)


@contextmanager
def opened(file: BinaryIO) -> Iterator[Archive]:
    """Open and check an archive; raises Invalid."""
    _check_end(file)
    with _reading():
        archive = zipfile.ZipFile(file)
    with archive:
        entries = archive.infolist()
        _check_entries(entries)
        manifest = decode(_read(archive, MANIFEST, MAX_MANIFEST))
        _check_names(manifest, {entry.filename for entry in entries})
        yield Archive(archive, manifest)


@contextmanager
def _reading() -> Iterator[None]:
    """Turn the exceptions of zipfile for damaged archives into Invalid."""
    try:
        yield
    except READ_ERRORS as error:
        raise refusal(f"the archive is damaged: {error}") from error


def _check_end(file: BinaryIO) -> None:
    """Check the archive's size and the end of its directory, before zipfile reads the directory."""
    size = file.seek(0, 2)
    if size > MAX_SIZE:
        raise refusal(f"the archive has {size:,} bytes; the limit is {MAX_SIZE:,}", limit=MAX_SIZE)
    file.seek(max(0, size - _END.size - _ZIP64_LOCATOR_SIZE))
    tail = file.read()
    if len(tail) < _END.size or not (end := tail[-_END.size :]).startswith(_END_SIGNATURE):
        raise refusal("this is no ZIP archive, or its end is missing; an archive's comment is not accepted")
    _, _, _, _, count, directory, _, _ = _END.unpack(end)
    if tail.startswith(_ZIP64_LOCATOR):
        raise refusal("archives in ZIP64 format are not accepted")
    if count > MAX_ENTRIES or directory > MAX_DIRECTORY:
        raise refusal(f"the archive has too many entries; the limit is {MAX_ENTRIES:,}", limit=MAX_ENTRIES)


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    """Check what the directory says of each entry; nothing is unpacked before."""
    if len(entries) > MAX_ENTRIES:
        raise refusal(f"the archive has too many entries; the limit is {MAX_ENTRIES:,}", limit=MAX_ENTRIES)
    _require_unique((entry.orig_filename for entry in entries), "entry")
    for entry in entries:
        name = repr(entry.orig_filename[:MAX_SHOWN])
        mode = entry.external_attr >> 16
        if entry.orig_filename != entry.filename or entry.is_dir():
            raise refusal(f"the entry {name} is not a file's name")
        if mode and stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
            raise refusal(f"the entry {name} is a link or a special file")
        if entry.flag_bits & 0x1:
            raise refusal(f"the entry {name} is encrypted")
        if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise refusal(f"the entry {name} is compressed by another method than deflate")
    if (total := sum(entry.file_size for entry in entries)) > MAX_SIZE:
        raise refusal(f"the files have {total:,} bytes unpacked; the limit is {MAX_SIZE:,}", limit=MAX_SIZE)


def _check_names(manifest: Manifest, names: set[str]) -> None:
    """Check that the manifest names each thing once, and exactly the files of the archive.

    Also check that it has each anchor's voice, and each recording that a voice uses.
    """
    _require_unique((voice.voice_id for voice in manifest.voices), "voice")
    _require_unique((entry.prompt_id for entry in manifest.recordings), "recording")
    expected = {MANIFEST, *(entry.name for entry in manifest.files)}
    for name in sorted(expected - names):
        raise refusal(f"{name[:MAX_SHOWN]!r} is missing in the archive")
    for name in sorted(names - expected):
        raise refusal(f"the archive has the entry {name[:MAX_SHOWN]!r}, which {MANIFEST} does not name")
    _require_unique((entry.voice_id for entry in manifest.anchors), "anchor")
    voices = {voice.voice_id for voice in manifest.voices}
    for anchor in manifest.anchors:
        if anchor.voice_id not in voices:
            raise refusal(f"{MANIFEST} has an anchor of {anchor.voice_id!r}, but not this voice")
    prompts = {entry.prompt_id for entry in manifest.recordings}
    for voice in manifest.voices:
        if voice.audio_prompt is not None and voice.audio_prompt not in prompts:
            raise refusal(f"{MANIFEST} lacks the recording {voice.audio_prompt!r} of {voice.voice_id!r}")


def _require_unique(names: Iterable[str], kind: str) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise refusal(f"the {kind} {name[:MAX_SHOWN]!r} occurs twice")
        seen.add(name)


def _read(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """Return the bytes of an entry, at most `size` + 1; raises Invalid if it is missing or damaged."""
    with _reading():
        try:
            entry = archive.getinfo(name)
        except KeyError:
            raise refusal(f"{name!r} is missing in the archive") from None
        if entry.file_size > size:
            raise refusal(f"{name} has {entry.file_size:,} bytes; the limit is {size:,}", limit=size)
        with archive.open(entry) as content:
            return content.read(size + 1)
