"""A model that sleeps as long as a GPU would compute, to measure what is around it."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from dia_server.engine.types import Chunk, LoadModel, Samples, Utterance


def sleeping(slots: int, step_s: float, samples: int, steps_per_chunk: int = 1) -> LoadModel:
    """Return the function that loads a SleepingModel whose chunks have `samples` samples."""
    return partial(_load, slots, step_s, np.zeros(samples, np.float32), steps_per_chunk)


def _load(
    slots: int, step_s: float, chunk: Samples, steps_per_chunk: int, _: Callable[[float], None]
) -> "SleepingModel":
    return SleepingModel(slots, step_s, chunk, steps_per_chunk)


class SleepingModel:
    """An utterance has `max_tokens` steps.

    A chunk's `tokens` is the number of steps that were left; its `progress` is the time at which it was made.
    """

    notes = ()

    def __init__(self, slots: int, step_s: float, chunk: Samples, steps_per_chunk: int) -> None:
        self.slots = slots
        self._step_s = step_s
        self._chunk = chunk
        self._steps_per_chunk = steps_per_chunk
        self._left: dict[int, int] = {}

    def admit(self, slot: int, utterance: Utterance) -> None:
        assert utterance.max_tokens
        self._left[slot] = utterance.max_tokens

    def step(self) -> Mapping[int, Chunk]:
        time.sleep(self._step_s)
        now = time.monotonic()
        made = {}
        for slot, left in self._left.items():
            self._left[slot] = left - 1
            # a chunk of each slot in turn, so that they do not come all at once
            if left <= 1 or (left + slot) % self._steps_per_chunk == 0:
                made[slot] = Chunk(self._chunk, tokens=left, progress=now, done=left <= 1)
        return made

    def release(self, slot: int) -> None:
        self._left.pop(slot, None)

    def reset(self) -> None:
        self._left.clear()

    def close(self) -> None:
        self._left.clear()
