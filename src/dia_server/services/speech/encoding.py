"""Changes tempo and loudness of speech and encodes it into audio files, on threads, off the event loop."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

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

    def open(
        self, audio_format: AudioFormat, speed: float, *, gain_db: float | None = None, whole: bool = False
    ) -> "SpeechFile":
        """Return a new file, whose bytes are available as they are encoded (streamed).

        The speech is amplified by `gain_db` decibels and limited, or left as it is if that is None. The bytes
        of a `whole` file are available at its end only; its header, if any, states its length.
        """
        return SpeechFile(self._threads, audio_format, speed, gain_db=gain_db, whole=whole)


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
        gain_db: float | None,
        whole: bool,
    ) -> None:
        self._threads = threads
        self._format: AudioFormat = audio_format
        self._speed = speed
        self._gain_db = gain_db
        self._whole = whole
        self._opened: tuple[Tempo, Encoder] | None = None

    async def push(self, samples: Samples) -> bytes:
        """Encode `samples`; return the bytes that are available: none if the file is whole."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._push, samples)

    async def finish(self) -> bytes:
        """End the file; return its remaining bytes: all bytes if the file is whole."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._finish)

    def _push(self, samples: Samples) -> bytes:
        tempo, encoder = self._open()
        return encoder.push(self._amplified(tempo.push(samples)))

    def _finish(self) -> bytes:
        tempo, encoder = self._open()
        return encoder.push(self._amplified(tempo.finish())) + encoder.finish()

    def _amplified(self, samples: Samples) -> Samples:
        return samples if self._gain_db is None else amplify(samples, self._gain_db)

    def _open(self) -> tuple[Tempo, Encoder]:
        """Return tempo filter and encoder. The first call opens them, which takes milliseconds."""
        if self._opened is None:
            self._opened = (
                Tempo(self._speed, SAMPLE_RATE),
                Encoder(self._format, SAMPLE_RATE, whole=self._whole),
            )
        return self._opened
