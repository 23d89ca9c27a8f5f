"""Models without weights, for tests of the engine round them."""

import numpy as np

from dia_server.engine.types import Chunk, Utterance


class Counter:
    """Speaks one chunk for each letter of the text, and remembers what was done with it."""

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.left: dict[int, int] = {}
        self.admitted: list[str] = []
        self.resets = 0
        self.closed = False
        self.failure: Exception | None = None
        """Raised by the next step."""

    def admit(self, slot: int, utterance: Utterance) -> None:
        assert slot not in self.left
        if utterance.text == "refuse":
            raise MemoryError("no room")
        self.admitted.append(utterance.text)
        self.left[slot] = len(utterance.text)

    def step(self) -> dict[int, Chunk | Exception]:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        for slot in self.left:
            self.left[slot] -= 1
        sound = np.zeros(1, np.float32)
        return {slot: Chunk(sound, 1, 0.5, done=left <= 0) for slot, left in self.left.items()}

    def release(self, slot: int) -> None:
        self.left.pop(slot, None)

    def reset(self) -> None:
        assert not self.left
        self.resets += 1

    def close(self) -> None:
        self.closed = True
