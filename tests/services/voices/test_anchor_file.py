import io
import zipfile
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from dia_server.audio import wav
from dia_server.errors import UnusableAudio
from dia_server.services.voices.anchor_file import AnchorFile, Description, unpack
from dia_server.units import HOP, SAMPLE_RATE

FRAMES = np.arange(9 * 20, dtype=np.int16).reshape(20, 9)
SAMPLES = np.linspace(-0.5, 0.5, 20 * HOP, dtype=np.float32)
DESCRIPTION = Description(transcript="Hello there.", seed=7, model="tiny")
PCM = wav.pcm16(SAMPLES)
WAV = wav.header(SAMPLE_RATE, len(PCM)) + PCM
CODES = FRAMES.tobytes()

Parts = dict[str, bytes]


def parts() -> Parts:
    return {"anchor.json": msgspec.json.encode(DESCRIPTION), "audio.wav": WAV, "codes.s16": CODES}


def zipped(content: Parts, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_a_file_is_read_as_it_was_written() -> None:
    content = AnchorFile(DESCRIPTION, SAMPLES, FRAMES).pack()
    read = unpack(content)

    assert read.description == DESCRIPTION
    np.testing.assert_array_equal(read.frames, FRAMES)
    np.testing.assert_allclose(read.samples, SAMPLES, atol=1 / 32767)
    assert read.duration_s == 20 * HOP / SAMPLE_RATE
    assert AnchorFile(read.description, read.samples, read.frames).pack() == content


def described(**changes: object) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(DESCRIPTION) | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anchor.json": b"{"}, "content cannot be read"),
        ({"anchor.json": described(format=2)}, "format"),
        ({"anchor.json": described(transcript="")}, "transcript"),
        ({"anchor.json": described(seed=-1)}, "seed"),
        ({"anchor.json": described(other=1)}, "other"),
        ({"audio.wav": b"RIFF"}, "audio.wav must be mono"),
        ({"audio.wav": wav.header(48_000, len(PCM)) + PCM}, "44100 Hz"),
        ({"codes.s16": CODES[:-1]}, "frames of 9 codes"),
        ({"codes.s16": b""}, "frames of 9 codes"),
        ({"codes.s16": np.zeros((1301, 9), np.int16).tobytes()}, "1 to 1300 frames"),
        ({"codes.s16": np.full((20, 9), 1024, np.int16).tobytes()}, "between 0 and 1023"),
        ({"codes.s16": np.full((20, 9), -1, np.int16).tobytes()}, "between 0 and 1023"),
        ({"../evil": b""}, "and no more"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_a_damaged_file_is_refused_in_words(changes: Parts, message: str) -> None:
    with pytest.raises(UnusableAudio, match=message):
        unpack(zipped(parts() | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "not a ZIP archive"),
        (lambda content: content[:-30], "not a ZIP archive"),
        (lambda content: content.replace(CODES, bytes(len(CODES))), "not a ZIP archive"),
        (lambda content: zipped(parts(), zipfile.ZIP_DEFLATED), "must not be compressed"),
        (lambda content: bytes(3_000_000), "the limit is"),
    ],
)
def test_a_damaged_archive_is_refused_in_words(damage: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(UnusableAudio, match=message):
        unpack(damage(zipped(parts())))
