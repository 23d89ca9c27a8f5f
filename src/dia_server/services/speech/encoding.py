"""Speech as files, made on threads of their own beside the event loop."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from dia_server.audio.encode import AudioFormat, Encoder
from dia_server.audio.tempo import Tempo
from dia_server.engine.types import SAMPLE_RATE, Samples


class EncoderThreads:
    """What every file of speech is encoded on, a part of it at a time: no file keeps the others waiting."""

    def __init__(self) -> None:
        # few: threads that compute must leave a processor to the event loop
        self._threads = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), "encode")

    def open(self, audio_format: AudioFormat, speed: float, *, whole: bool = False) -> "SpeechFile":
        """Begin a file that is sent while it grows, or a `whole` one, which is exact."""
        return SpeechFile(self._threads, audio_format, speed, whole=whole)


class SpeechFile:
    """Samples in, the bytes of one file out; calls must not overlap, and raise AudioProcessingError."""

    def __init__(
        self, threads: ThreadPoolExecutor, audio_format: AudioFormat, speed: float, *, whole: bool
    ) -> None:
        self._threads = threads
        self._format: AudioFormat = audio_format
        self._speed = speed
        self._whole = whole
        self._opened: tuple[Tempo, Encoder] | None = None

    async def push(self, samples: Samples) -> bytes:
        """Return what is ready: it may be nothing, and of a whole file it is."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._push, samples)

    async def finish(self) -> bytes:
        """Return the rest, of a whole file all."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._finish)

    def _push(self, samples: Samples) -> bytes:
        tempo, encoder = self._open()
        return encoder.push(tempo.push(samples))

    def _finish(self) -> bytes:
        tempo, encoder = self._open()
        return encoder.push(tempo.finish()) + encoder.finish()

    def _open(self) -> tuple[Tempo, Encoder]:
        """Opening a codec and a filter takes milliseconds, which are the thread's too."""
        if self._opened is None:
            self._opened = (
                Tempo(self._speed, SAMPLE_RATE),
                Encoder(self._format, SAMPLE_RATE, whole=self._whole),
            )
        return self._opened
