"""Codes to audio beside the decoder: inline on a CPU, in a thread with a stream of its own on CUDA.

There the codec's kernels run at low priority between those of the steps, and the engine's thread goes on
queueing steps while the codec's waits for its audio.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch

from dia_server.engine.dia.codec import Window
from dia_server.engine.dia.run import Run
from dia_server.engine.types import Chunk, Samples

LOWEST_PRIORITY = 0


class Decoder(Protocol):
    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        """Codes to the audio of each window's middle."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One window's work, and what to say of its utterance when it is done."""

    slot: int
    run: Run
    window: Window
    tokens: int
    progress: float
    done: bool


class Decoding:
    """One batch of windows at a time."""

    def __init__(self, codec: Decoder, device: torch.device) -> None:
        self._codec = codec
        self._stream: torch.cuda.Stream | None = None
        self._thread: ThreadPoolExecutor | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device, priority=LOWEST_PRIORITY)  # type: ignore[no-untyped-call]
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="codec")
        self._pieces: list[Piece] = []
        self._audio: Future[list[Samples]] | None = None

    @property
    def busy(self) -> bool:
        return self._audio is not None

    def start(self, pieces: list[Piece]) -> None:
        """Decode `pieces`; only while nothing else is being decoded."""
        assert self._audio is None
        windows = [piece.window for piece in pieces]
        self._pieces = pieces
        if self._thread is None:
            audio = self._codec.decode(windows)
            self._audio = Future()
            self._audio.set_result(audio)
        else:
            self._audio = self._thread.submit(self._decode_beside, windows)

    def finished(self, *, wait: bool) -> list[tuple[Piece, Chunk]]:
        """What has been decoded; an empty list where that is still going on and is not waited for."""
        if self._audio is None or not (wait or self._audio.done()):
            return []
        audio, self._audio = self._audio, None
        return [
            (piece, Chunk(samples, piece.tokens, piece.progress, piece.done))
            for piece, samples in zip(self._pieces, audio.result(), strict=True)
        ]

    def abandon(self) -> None:
        """Wait for what is being decoded and forget it."""
        if self._audio is not None:
            self._audio.exception()
            self._audio = None

    def close(self) -> None:
        self.abandon()
        if self._thread is not None:
            self._thread.shutdown()

    def _decode_beside(self, windows: Sequence[Window]) -> list[Samples]:
        with torch.cuda.stream(self._stream):
            return self._codec.decode(windows)
