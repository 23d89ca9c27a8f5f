"""A model that plays the audio which a test scripts, in chunks of 0.1 s per step."""

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from dia_server.engine.types import Chunk, Frames, Samples, Utterance
from dia_server.units import SAMPLE_RATE

Part = Samples | Exception
Script = Callable[[Utterance], Sequence[Part]]

CHUNK = SAMPLE_RATE // 10


def speech(seconds: float, level: float = 0.2) -> list[Part]:
    """Return a tone that fades to silence at its end, as a word does, so that the guard accepts it."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    samples = (level * np.sin(2 * np.pi * 220 * time)).astype(np.float32)
    samples[-CHUNK:] *= np.linspace(1, 0, CHUNK, dtype=np.float32)
    return list(np.split(samples, range(CHUNK, len(samples), CHUNK)))


def frames_of(utterance: Utterance) -> Frames:
    """Return the frames that the model reports for `utterance`."""
    return np.full((3, 9), sum(utterance.text.encode()) % 1024, np.int16)


class ScriptedModel:
    def __init__(
        self,
        script: Script,
        slots: int = 4,
        step_s: float = 0.0,
        is_held: Callable[[Utterance], bool] = lambda _: False,
    ) -> None:
        """`step_s` is the duration of a step in seconds; an utterance makes no progress while `is_held`."""
        self.script = script
        self.slots = slots
        self.notes = ()
        self.step_s = step_s
        self.is_held = is_held
        self.seen: list[Utterance] = []
        self.most = 0
        """Maximum number of utterances that ran at the same time."""
        self._parts: dict[int, deque[Part]] = {}
        self._counts: dict[int, int] = {}
        self._running: dict[int, Utterance] = {}

    def admit(self, slot: int, utterance: Utterance) -> None:
        assert slot not in self._parts
        self.seen.append(utterance)
        self._running[slot] = utterance
        self._parts[slot] = deque(self.script(utterance))
        self._counts[slot] = len(self._parts[slot])
        self.most = max(self.most, len(self._parts))

    def step(self) -> dict[int, Chunk | Exception]:
        time.sleep(self.step_s)
        return {slot: self._advance(slot) for slot in self._parts if not self.is_held(self._running[slot])}

    def _advance(self, slot: int) -> Chunk | Exception:
        part = self._parts[slot].popleft()
        if isinstance(part, Exception):
            return part
        assert isinstance(part, np.ndarray)
        left = len(self._parts[slot])
        frames = None if left else frames_of(self._running[slot])
        return Chunk(part, tokens=8, progress=1 - left / self._counts[slot], done=not left, frames=frames)

    def release(self, slot: int) -> None:
        self._parts.pop(slot, None)

    def reset(self) -> None:
        self._parts.clear()

    def close(self) -> None:
        self._parts.clear()
