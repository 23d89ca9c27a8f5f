"""Decodes codes to audio: on CUDA concurrently with decode steps, on CPUs and Metal synchronously."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import torch

from dia_server.engine.dia.background_stream import BackgroundStream
from dia_server.engine.dia.codec import Window
from dia_server.engine.dia.run import Run
from dia_server.engine.types import Chunk, Samples


class CodecDecoder(Protocol):
    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        """Return the samples of each window, without those of its context frames."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodeTask:
    """A window to decode, with the values of the `Chunk` that will carry its audio."""

    slot: int
    run: Run
    window: Window
    tokens: int
    progress: float
    done: bool


class AudioDecoder:
    """Decodes one batch of windows at a time."""

    def __init__(self, codec: CodecDecoder, device: torch.device) -> None:
        self._codec = codec
        self._background = BackgroundStream(device, "codec") if device.type == "cuda" else None
        self._tasks: list[DecodeTask] = []
        self._audio: Future[list[Samples]] | None = None

    @property
    def busy(self) -> bool:
        return self._audio is not None

    def start(self, tasks: list[DecodeTask]) -> list[tuple[DecodeTask, Chunk]]:
        """Decode `tasks` and return their chunks.

        On CUDA only starts decoding and returns []; `finished` returns the chunks later. Until `finished` has
        returned them, the decoder is `busy` and `start` must not be called.
        """
        assert self._audio is None
        windows = [task.window for task in tasks]
        if self._background is None:
            return _chunks(tasks, self._codec.decode(windows))
        self._tasks = tasks
        self._audio = self._background.submit(self._codec.decode, windows)
        return []

    def finished(self, *, wait: bool) -> list[tuple[DecodeTask, Chunk]]:
        """Return, once, the chunks of the batch that `start` began on CUDA; [] if there is no such batch.

        If the batch is still being decoded, waits for it if `wait` is set, and otherwise returns [].
        """
        if self._audio is None or not (wait or self._audio.done()):
            return []
        audio, self._audio = self._audio, None
        return _chunks(self._tasks, audio.result())

    def abandon(self) -> None:
        """Wait for the batch being decoded and discard its audio or error."""
        if self._audio is not None:
            self._audio.exception()
            self._audio = None

    def close(self) -> None:
        self.abandon()
        if self._background is not None:
            self._background.close()


def _chunks(tasks: Sequence[DecodeTask], audio: Sequence[Samples]) -> list[tuple[DecodeTask, Chunk]]:
    return [
        (
            task,
            Chunk(samples, task.tokens, task.progress, task.done, task.run.frames() if task.done else None),
        )
        for task, samples in zip(tasks, audio, strict=True)
    ]
