"""Fake models for tests: each utterance is a tone, with one chunk per decode step and per character."""

import threading
from collections.abc import Callable

import numpy as np

from dia_server.engine.types import Chunk, LoadModel, Model, Utterance
from dia_server.units import SAMPLE_RATE

CHUNK = (0.1 * np.sin(2 * np.pi * 441 * np.arange(SAMPLE_RATE // 100) / SAMPLE_RATE)).astype(np.float32)


class ToneModel:
    """Speaks a tone; `before_step` runs in each step and may block, to hold the batch, or raise."""

    def __init__(self, slots: int = 4, before_step: Callable[[], object] = lambda: None) -> None:
        self.slots = slots
        self.notes = ()
        self.before_step = before_step
        self.steps = 0
        self.resets = 0
        self.closed = False
        self.most = 0
        """Maximum number of utterances that ran at the same time."""
        self.left: dict[int, int] = {}
        self.seen: list[Utterance] = []

    def admit(self, slot: int, utterance: Utterance) -> None:
        assert slot not in self.left
        self.seen.append(utterance)
        self.left[slot] = len(utterance.text)
        self.most = max(self.most, len(self.left))

    def step(self) -> dict[int, Chunk | Exception]:
        self.before_step()
        self.steps += 1
        chunks: dict[int, Chunk | Exception] = {}
        for slot, utterance_left in self.left.items():
            self.left[slot] = left = utterance_left - 1
            chunks[slot] = Chunk(CHUNK, tokens=1, progress=1 / (left + 1), done=left == 0)
        return chunks

    def release(self, slot: int) -> None:
        self.left.pop(slot, None)

    def reset(self) -> None:
        self.resets += 1
        self.left.clear()

    def close(self) -> None:
        self.closed = True


def loader(model: Model) -> LoadModel:
    return lambda _: model


class Gate:
    """Blocks a step, as `before_step`, until `open` is called."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self._open.wait(timeout=10)

    def open(self) -> None:
        self._open.set()


def failing_loader(gate: Gate) -> LoadModel:
    """Return a `load` that fails with "disk on fire" once `gate` is open."""

    def load(_: object) -> ToneModel:
        gate()
        raise OSError("disk on fire")

    return load


class FatalModel(ToneModel):
    """Calls `fault` in every eighth step while a text with "crash" in it runs."""

    def __init__(self, fault: Callable[[], object], slots: int = 4) -> None:
        super().__init__(slots)
        self.batches: list[set[str]] = []
        """Texts that ran together when `fault` was called."""
        self._fault = fault
        self._texts: dict[int, str] = {}

    def admit(self, slot: int, utterance: Utterance) -> None:
        super().admit(slot, utterance)
        self._texts[slot] = utterance.text

    def step(self) -> dict[int, Chunk | Exception]:
        running = {self._texts[slot] for slot in self.left}
        if any("crash" in text for text in running) and self.steps % 8 == 0:
            self.batches.append(running)
            self.steps += 1
            self._fault()
        return super().step()
