"""A model that sleeps as long as a GPU would compute, to measure what is around it."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from dia_server.engine.types import Chunk, LoadModel, Utterance

STEP_S = 0.05
"""Seconds of a step, in which each running utterance gets a chunk."""
CHUNK = np.zeros(11_025, np.float32)
"""A quarter of a second: five times real time."""


def sleeping(slots: int) -> LoadModel:
    return partial(_load, slots=slots)


def _load(_: Callable[[float], None], *, slots: int) -> "SleepingModel":
    return SleepingModel(slots)


class SleepingModel:
    """An utterance has `max_tokens` chunks; their `progress` is the time at which they were made."""

    notes = ()

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._left: dict[int, int] = {}

    def admit(self, slot: int, utterance: Utterance) -> None:
        assert utterance.max_tokens
        self._left[slot] = utterance.max_tokens

    def step(self) -> Mapping[int, Chunk]:
        time.sleep(STEP_S)
        made = {}
        for slot in [*self._left]:
            self._left[slot] -= 1
            done = not self._left[slot]
            made[slot] = Chunk(CHUNK, tokens=1, progress=time.monotonic(), done=done)
        return made

    def release(self, slot: int) -> None:
        self._left.pop(slot, None)

    def reset(self) -> None:
        self._left.clear()

    def close(self) -> None:
        self._left.clear()
