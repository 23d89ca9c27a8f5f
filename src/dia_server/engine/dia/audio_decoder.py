"""Decodes codes to audio: on CUDA concurrently with decode steps, on CPUs and Metal synchronously."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import torch

from dia_server.engine.dia.background_stream import BackgroundStream
from dia_server.engine.dia.codec import Window
from dia_server.engine.dia.memory import RETRY_S, is_out_of_memory, release_cached
from dia_server.engine.dia.run import Run
from dia_server.engine.types import Chunk, Samples
from dia_server.errors import GpuOutOfMemory

log = logging.getLogger(__name__)

Decoded = Samples | GpuOutOfMemory
"""The audio of a window, or why there is none."""
NO_ROOM = "Too little memory is left to decode this request's audio; try again later"


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
    """Decodes one batch of windows at a time.

    If memory runs out, decodes half as many windows in a call to the codec, then and in all later batches. If
    memory runs out for a single window, only that window fails.
    """

    def __init__(self, codec: CodecDecoder, device: torch.device) -> None:
        self._codec = codec
        self._background = BackgroundStream(device, "codec") if device.type == "cuda" else None
        self._most: int | None = None
        """Maximum windows of a call to the codec, once memory has run out; None for any number."""
        self._tasks: list[DecodeTask] = []
        self._audio: Future[list[Decoded]] | None = None

    @property
    def busy(self) -> bool:
        return self._audio is not None

    def start(self, tasks: list[DecodeTask]) -> list[tuple[DecodeTask, Chunk | GpuOutOfMemory]]:
        """Decode `tasks` and return the chunk of each, or its error.

        On CUDA only starts decoding and returns []; `finished` returns the chunks later. Until `finished` has
        returned them, the decoder is `busy` and `start` must not be called.
        """
        assert self._audio is None
        windows = [task.window for task in tasks]
        if self._background is None:
            return _chunks(tasks, self._decode(windows))
        self._tasks = tasks
        self._audio = self._background.submit(self._decode, windows)
        return []

    def finished(self, *, wait: bool) -> list[tuple[DecodeTask, Chunk | GpuOutOfMemory]]:
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

    def _decode(self, windows: Sequence[Window]) -> list[Decoded]:
        decoded: list[Decoded] = []
        while len(decoded) < len(windows):
            part = windows[len(decoded) :][: self._most]
            try:
                decoded += self._codec.decode(part)
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            release_cached()  # after the handler: the traceback's frames refer to tensors
            if len(part) > 1:
                self._most = len(part) // 2
                log.warning("out of memory in the codec", extra={"windows": self._most})
            else:
                decoded.append(GpuOutOfMemory(NO_ROOM, retry_after=RETRY_S))
        return decoded


def _chunks(
    tasks: Sequence[DecodeTask], decoded: Sequence[Decoded]
) -> list[tuple[DecodeTask, Chunk | GpuOutOfMemory]]:
    return [(task, _chunk(task, one)) for task, one in zip(tasks, decoded, strict=True)]


def _chunk(task: DecodeTask, decoded: Decoded) -> Chunk | GpuOutOfMemory:
    if isinstance(decoded, GpuOutOfMemory):
        return decoded
    frames = task.run.frames() if task.done else None
    return Chunk(decoded, task.tokens, task.progress, task.done, frames)
