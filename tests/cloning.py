"""A fake Dia: each utterance is a tone that fades, its frames tell the seed, its pitch the prompt."""

from collections.abc import Callable
from zlib import crc32

import numpy as np

from dia_server.engine.types import Chunk, Frames, Samples, Utterance
from dia_server.units import HOP, SAMPLE_RATE
from tests.tones import ToneModel

STEPS = 8
"""Steps that an utterance takes, whatever its text."""
SPEED = 15
"""Characters per second of the tone."""


class CloningModel(ToneModel):
    """Speaks each text as a tone of a natural duration; `silent` names the seeds that stay silent."""

    def __init__(
        self,
        slots: int = 4,
        before_step: Callable[[], object] = lambda: None,
        silent: Callable[[int], bool] = lambda _: False,
    ) -> None:
        super().__init__(slots, before_step)
        self._silent = silent
        self._running: dict[int, Utterance] = {}

    def admit(self, slot: int, utterance: Utterance) -> None:
        super().admit(slot, utterance)
        self.left[slot] = STEPS
        self._running[slot] = utterance

    def step(self) -> dict[int, Chunk | Exception]:
        chunks = super().step()
        for slot, chunk in chunks.items():
            assert isinstance(chunk, Chunk)
            utterance = self._running[slot]
            samples = tone(utterance, self._silent(utterance.seed)) if chunk.done else chunk.samples[:0]
            frames = frames_of(utterance) if chunk.done else None
            chunks[slot] = Chunk(samples, tokens=1, progress=chunk.progress, done=chunk.done, frames=frames)
        return chunks


def frames_of(utterance: Utterance) -> Frames:
    """Return the frames of an utterance: its seed in each codebook."""
    return np.full((_length(utterance), 9), utterance.seed % 1024, np.int16)


def tone(utterance: Utterance, silent: bool) -> Samples:
    """Return the audio of an utterance: HOP samples for each frame."""
    time = np.arange(_length(utterance) * HOP) / SAMPLE_RATE
    loudness = 0.0 if silent else 0.3
    fade = np.minimum(1.0, (time[-1] - time) / 0.1)
    samples: Samples = (loudness * fade * np.sin(2 * np.pi * _pitch(utterance) * time)).astype(np.float32)
    return samples


def _pitch(utterance: Utterance) -> int:
    """Return the fundamental frequency in Hz; prompts with other audio or another transcript have another."""
    prompt = utterance.prompt
    return 150 + (0 if prompt is None else crc32(f"{prompt.key} {prompt.transcript}".encode()) % 200)


def _length(utterance: Utterance) -> int:
    return max(1, len(utterance.text) * SAMPLE_RATE // SPEED // HOP)
