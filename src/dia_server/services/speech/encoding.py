"""Changes tempo and loudness of speech and encodes it into audio files, on threads, off the event loop."""

import asyncio
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dia_server.audio.encode import AudioFormat, Encoder
from dia_server.audio.loudness import amplify
from dia_server.audio.tempo import Tempo
from dia_server.engine.types import Samples
from dia_server.units import SAMPLE_RATE


class EncoderThreads:
    """Thread pool that encodes all files chunk by chunk, so that no file delays the others."""

    def __init__(self) -> None:
        # one core is left to the event loop
        self._threads = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), "encode")

    def open(self, audio_format: AudioFormat, speed: float, *, whole: bool = False) -> "SpeechFile":
        """Return a new file, whose bytes are available as they are encoded (streamed).

        The bytes of a `whole` file are available at its end only; its header, if any, states its length.
        """
        return SpeechFile(self._threads, audio_format, speed, whole=whole)


class SpeechFile:
    """Encodes samples into the bytes of one file.

    `push` and `finish` raise AudioProcessingError. Their calls must not overlap.
    """

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        audio_format: AudioFormat,
        speed: float,
        *,
        whole: bool,
    ) -> None:
        self._threads = threads
        self._format: AudioFormat = audio_format
        self._speed = speed
        self._whole = whole
        self._opened: tuple[Tempo, Encoder] | None = None
        self._gains: deque[tuple[int, float | None]] = deque()
        """First sample, at the changed tempo, and gain of the parts of the file that are not encoded yet."""
        self._pushed = self._amplified_count = 0

    async def push(self, samples: Samples, gain_db: float | None = None) -> bytes:
        """Encode `samples`; return the bytes that are available: none if the file is whole.

        They are amplified by `gain_db` decibels and limited, or left as they are if that is None. Where the
        tempo is changed, a new gain begins up to 25 ms from its first sample.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._push, samples, gain_db)

    async def finish(self) -> bytes:
        """End the file; return its remaining bytes: all bytes if the file is whole."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._finish)

    def _push(self, samples: Samples, gain_db: float | None) -> bytes:
        tempo, encoder = self._open()
        if not self._gains or self._gains[-1][1] != gain_db:
            self._gains.append((round(self._pushed / self._speed), gain_db))
        self._pushed += len(samples)
        return encoder.push(self._amplified(tempo.push(samples)))

    def _finish(self) -> bytes:
        tempo, encoder = self._open()
        return encoder.push(self._amplified(tempo.finish())) + encoder.finish()

    def _amplified(self, samples: Samples) -> Samples:
        """Amplify the next samples, each by the gain of its part of the file."""
        parts = [samples[:0]]
        while len(samples):
            while len(self._gains) > 1 and self._gains[1][0] <= self._amplified_count:
                self._gains.popleft()
            end = self._gains[1][0] - self._amplified_count if len(self._gains) > 1 else len(samples)
            part, samples = samples[:end], samples[end:]
            gain_db = self._gains[0][1]
            parts.append(part if gain_db is None else amplify(part, gain_db))
            self._amplified_count += len(part)
        return np.concatenate(parts)

    def _open(self) -> tuple[Tempo, Encoder]:
        """Return tempo filter and encoder. The first call opens them, which takes milliseconds."""
        if self._opened is None:
            self._opened = (
                Tempo(self._speed, SAMPLE_RATE),
                Encoder(self._format, SAMPLE_RATE, whole=self._whole),
            )
        return self._opened
