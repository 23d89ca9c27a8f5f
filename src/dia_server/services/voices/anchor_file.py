"""The file of an anchor: a ZIP archive of its codec frames, its audio and its description.

The archive is not compressed, so unpacking it takes no more memory than the file. Equal content gives equal
bytes, so an anchor keeps its digest when it is exported and imported.
"""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from dia_server.audio import wav
from dia_server.engine.types import Frames, Samples
from dia_server.errors import UnusableAudio
from dia_server.units import HOP, SAMPLE_RATE

FORMAT = 1
SUFFIX = ".anchor"
MAX_FRAMES = 1300
"""Maximum frames of an anchor: 15 s."""
CODEBOOKS, CODE_COUNT = 9, 1024
"""Number of codebooks, and of codes in each."""
MAX_SIZE = 2 * (MAX_FRAMES + 1) * HOP + MAX_FRAMES * CODEBOOKS * 2 + 16 * 1024
"""Maximum bytes of the file: 16-bit samples, frames and 16 KiB for the rest."""

DESCRIPTION, AUDIO, CODES = "anchor.json", "audio.wav", "codes.s16"
READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""Exceptions of zipfile for damaged archives; UnicodeDecodeError is a ValueError."""
_TIME = (1980, 1, 1, 0, 0, 0)


class Description(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)] = FORMAT
    transcript: Annotated[str, Meta(min_length=1, max_length=400)]
    """Words of the anchor, without speaker tags."""
    seed: Annotated[int, Meta(ge=0, lt=2**32)]
    model: Annotated[str, Meta(max_length=255)]


@dataclass(frozen=True, slots=True, eq=False)
class AnchorFile:
    description: Description
    samples: Samples
    """Audio at SAMPLE_RATE."""
    frames: Frames
    """The same audio as codec frames, shape [n, 9]."""

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    @property
    def wav(self) -> bytes:
        """The audio as a WAV file."""
        pcm = wav.pcm16(self.samples)
        return wav.header(SAMPLE_RATE, len(pcm)) + pcm

    def pack(self) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in (
                (DESCRIPTION, msgspec.json.encode(self.description)),
                (AUDIO, self.wav),
                (CODES, self.frames.astype("<i2").tobytes()),
            ):
                archive.writestr(zipfile.ZipInfo(name, _TIME), content)
        return file.getvalue()


def unpack(content: bytes) -> AnchorFile:
    """Return the anchor in the file `content`; raises UnusableAudio if it is malformed or exceeds a limit."""
    if len(content) > MAX_SIZE:
        raise UnusableAudio(f"The anchor has {len(content)} bytes; the limit is {MAX_SIZE}", limit=MAX_SIZE)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sorted(archive.namelist()) != sorted([DESCRIPTION, AUDIO, CODES]):
                raise UnusableAudio(f"The anchor must hold {DESCRIPTION}, {AUDIO} and {CODES}, and no more")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise UnusableAudio("The anchor's archive must not be compressed")
            description = msgspec.json.decode(archive.read(DESCRIPTION), type=Description)
            audio, codes = archive.read(AUDIO), archive.read(CODES)
    except msgspec.DecodeError as error:
        raise UnusableAudio(f"The anchor's content cannot be read: {error}") from error
    except READ_ERRORS as error:
        raise UnusableAudio(f"The anchor is not a ZIP archive that can be read: {error}") from error
    return AnchorFile(description, _samples(audio), _frames(codes))


def _samples(audio: bytes) -> Samples:
    pcm = audio[wav.HEADER_LENGTH :]
    if audio[: wav.HEADER_LENGTH] != wav.header(SAMPLE_RATE, len(pcm)) or len(pcm) % 2 or not pcm:
        raise UnusableAudio(f"The anchor's {AUDIO} must be mono, 16 bits and {SAMPLE_RATE} Hz")
    return wav.samples(pcm)


def _frames(codes: bytes) -> Frames:
    count, rest = divmod(len(codes), 2 * CODEBOOKS)
    if rest or not 1 <= count <= MAX_FRAMES:
        raise UnusableAudio(
            f"The anchor's {CODES} must be 1 to {MAX_FRAMES} frames of {CODEBOOKS} codes", limit=MAX_FRAMES
        )
    frames = np.frombuffer(codes, "<i2").reshape(count, CODEBOOKS).astype(np.int16)
    if frames.min() < 0 or frames.max() >= CODE_COUNT:
        raise UnusableAudio(f"The anchor's codes must be between 0 and {CODE_COUNT - 1}")
    return frames
