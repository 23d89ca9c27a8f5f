"""Codes to audio: inline on a CPU, beside the decoder's steps on CUDA."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import torch

from dia_server.engine.dia.beside import Beside
from dia_server.engine.dia.codec import Window
from dia_server.engine.dia.run import Run
from dia_server.engine.types import Chunk, Samples


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
        self._beside = Beside(device, "codec") if device.type == "cuda" else None
        self._pieces: list[Piece] = []
        self._audio: Future[list[Samples]] | None = None

    @property
    def busy(self) -> bool:
        return self._audio is not None

    def start(self, pieces: list[Piece]) -> list[tuple[Piece, Chunk]]:
        """Decode `pieces`, only while nothing else is being decoded; returns what is done already."""
        assert self._audio is None
        windows = [piece.window for piece in pieces]
        if self._beside is None:
            return _chunks(pieces, self._codec.decode(windows))
        self._pieces = pieces
        self._audio = self._beside.submit(self._codec.decode, windows)
        return []

    def finished(self, *, wait: bool) -> list[tuple[Piece, Chunk]]:
        """What has been decoded; an empty list where that is still going on and is not waited for."""
        if self._audio is None or not (wait or self._audio.done()):
            return []
        audio, self._audio = self._audio, None
        return _chunks(self._pieces, audio.result())

    def abandon(self) -> None:
        """Wait for what is being decoded and forget it."""
        if self._audio is not None:
            self._audio.exception()
            self._audio = None

    def close(self) -> None:
        self.abandon()
        if self._beside is not None:
            self._beside.close()


def _chunks(pieces: Sequence[Piece], audio: Sequence[Samples]) -> list[tuple[Piece, Chunk]]:
    return [
        (
            piece,
            Chunk(
                samples, piece.tokens, piece.progress, piece.done, piece.run.frames() if piece.done else None
            ),
        )
        for piece, samples in zip(pieces, audio, strict=True)
    ]
