"""A model without weights for tests of workers: one chunk per word, or a failure named by the word."""

import logging
import os
from collections.abc import Callable

import numpy as np

from dia_server.engine.types import Chunk, Utterance
from dia_server.errors import TextTooLong

log = logging.getLogger(__name__)


class Talker:
    """Each chunk is one sample: the id of the process that runs the model."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.notes: tuple[str, ...] = ("talks only",)
        self._words: dict[int, list[str]] = {}
        self._broken = False

    def admit(self, slot: int, utterance: Utterance) -> None:
        if utterance.text == "too long":
            raise TextTooLong("1025 bytes", param="text")
        if utterance.text == "die at once":
            os._exit(3)
        self._words[slot] = utterance.text.split()

    def step(self) -> dict[int, Chunk | Exception]:
        outcomes: dict[int, Chunk | Exception] = {}
        for slot, words in self._words.items():
            match words.pop(0):
                case "die":
                    os._exit(7)
                case "crash":
                    raise ArithmeticError("the step failed")
                case "break":
                    self._broken = True
                    raise ArithmeticError("the GPU has a fault")
                case "fail":
                    outcomes[slot] = TextTooLong("this one only")
                case _:
                    samples = np.array([os.getpid()], np.float32)
                    outcomes[slot] = Chunk(samples, tokens=1, progress=0.5, done=not words)
        return outcomes

    def release(self, slot: int) -> None:
        if self._broken:
            raise ArithmeticError("nothing works after a fault")
        self._words.pop(slot, None)

    def reset(self) -> None:
        if self._broken:
            raise ArithmeticError("nothing works after a fault")
        self._words.clear()
        self.notes += ("was reset",)

    def close(self) -> None:
        pass


def load_talker(report: Callable[[float], None], *, slots: int = 2) -> Talker:
    report(0.5)
    log.info("slots", extra={"slots": slots})
    return Talker(slots)


def load_nothing(report: Callable[[float], None]) -> Talker:
    raise OSError("no weights")
