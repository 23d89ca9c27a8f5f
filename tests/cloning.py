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
    """Speaks each text as a tone of a natural duration.

    `silent` names the seeds that stay silent;
    `pitch` returns the frequency in Hz of a seed's tone without a prompt.
    """

    def __init__(
        self,
        slots: int = 4,
        before_step: Callable[[], object] = lambda: None,
        silent: Callable[[int], bool] = lambda _: False,
        pitch: Callable[[int], float] = lambda _: 150.0,
    ) -> None:
        super().__init__(slots, before_step)
        self._silent = silent
        self._pitch = pitch
        self.running: dict[int, Utterance] = {}

    def admit(self, slot: int, utterance: Utterance) -> None:
        super().admit(slot, utterance)
        self.left[slot] = STEPS
        self.running[slot] = utterance

    def step(self) -> dict[int, Chunk | Exception]:
        chunks = super().step()
        for slot, chunk in chunks.items():
            assert isinstance(chunk, Chunk)
            utterance = self.running[slot]
            samples = self._tone(utterance) if chunk.done else chunk.samples[:0]
            frames = frames_of(utterance) if chunk.done else None
            chunks[slot] = Chunk(samples, tokens=1, progress=chunk.progress, done=chunk.done, frames=frames)
        return chunks

    def _tone(self, utterance: Utterance) -> Samples:
        return tone(utterance, self._silent(utterance.seed), self._pitch(utterance.seed))


def frames_of(utterance: Utterance) -> Frames:
    """Return the frames of an utterance: its seed in each codebook."""
    return np.full((_length(utterance), 9), utterance.seed % 1024, np.int16)


def tone(utterance: Utterance, silent: bool, pitch: float = 150.0) -> Samples:
    """Return the audio of an utterance: HOP samples for each frame."""
    time = np.arange(_length(utterance) * HOP) / SAMPLE_RATE
    loudness = 0.0 if silent else 0.3
    fade = np.minimum(1.0, (time[-1] - time) / 0.1)
    frequency = pitch + _offset(utterance)
    samples: Samples = (loudness * fade * np.sin(2 * np.pi * frequency * time)).astype(np.float32)
    return samples


def _offset(utterance: Utterance) -> int:
    """Return Hz to add to the frequency: prompts with other audio or another transcript give other tones."""
    prompt = utterance.prompt
    return 0 if prompt is None else crc32(f"{prompt.key} {prompt.transcript}".encode()) % 200


def _length(utterance: Utterance) -> int:
    return max(1, len(utterance.text) * SAMPLE_RATE // SPEED // HOP)
