"""The form in which a voice prompt is kept: a WAV file of mono 16-bit PCM, its peak at 0.95."""

from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dia_server.audio import wav
from dia_server.audio.decode import MAX_S, MIN_S, PEAK, decode
from dia_server.audio.encode import encode

SAMPLE_RATE = 44_100
"""What the model takes."""
MAX_SIZE = wav.HEADER_LENGTH + 2 * round(MAX_S * SAMPLE_RATE)
"""Bytes."""


def make(file: BinaryIO) -> bytes:
    """Bring any audio file into this form; raises UnusableAudio."""
    return encode(decode(file, SAMPLE_RATE), SAMPLE_RATE, "wav")


class PromptMaker:
    """`make` as a `NativeWorker` serves it."""

    def make(self, file: BinaryIO) -> bytes:
        return make(file)


def is_made(file: bytes) -> bool:
    """Tell whether a file has this form already: making it again would cost it a little quality."""
    pcm = file[wav.HEADER_LENGTH :]
    if len(pcm) % 2 or file[: wav.HEADER_LENGTH] != wav.header(SAMPLE_RATE, len(pcm)):
        return False
    return MIN_S <= duration(file) <= MAX_S and abs(float(np.abs(wav.samples(pcm)).max()) - PEAK) < 0.001


def duration(made: bytes) -> float:
    """Seconds."""
    return (len(made) - wav.HEADER_LENGTH) / 2 / SAMPLE_RATE


def samples(made: bytes) -> NDArray[np.float32]:
    return wav.samples(made[wav.HEADER_LENGTH :])
