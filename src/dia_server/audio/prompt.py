"""Storage format of voice prompts: WAV, mono, 16-bit PCM, 44.1 kHz, peak at 0.95."""

from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dia_server.audio import wav
from dia_server.audio.decode import MAX_S, MIN_S, PEAK, decode
from dia_server.audio.encode import encode
from dia_server.units import SAMPLE_RATE

MAX_SIZE = wav.HEADER_LENGTH + 2 * round(MAX_S * SAMPLE_RATE)
"""Maximum bytes of a stored voice prompt."""


def make(file: BinaryIO) -> bytes:
    """Convert an audio file to the storage format; raises UnusableAudio if it cannot be a voice prompt."""
    return encode(decode(file, SAMPLE_RATE), SAMPLE_RATE, "wav")


class PromptMaker:
    """`make` as a method, for a `NativeWorker`."""

    def make(self, file: BinaryIO) -> bytes:
        return make(file)


def is_made(file: bytes) -> bool:
    """Return whether `file` already is a stored voice prompt: converting it again would only lose quality.

    Checks the header, the duration (MIN_S to MAX_S) and the peak.
    """
    pcm = file[wav.HEADER_LENGTH :]
    if len(pcm) % 2 or file[: wav.HEADER_LENGTH] != wav.header(SAMPLE_RATE, len(pcm)):
        return False
    return MIN_S <= duration(file) <= MAX_S and abs(float(np.abs(wav.samples(pcm)).max()) - PEAK) < 0.001


def duration(file: bytes) -> float:
    """Return the duration in seconds of a stored voice prompt."""
    return (len(file) - wav.HEADER_LENGTH) / 2 / SAMPLE_RATE


def samples(file: bytes) -> NDArray[np.float32]:
    return wav.samples(file[wav.HEADER_LENGTH :])
