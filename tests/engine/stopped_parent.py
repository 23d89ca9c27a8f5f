"""Runs an engine whose worker holds several utterances; a test stops this process meanwhile.

    python -m tests.engine.stopped_parent FOLDER

Prints "running" after the first chunk of each utterance. From then on the worker's model waits for the file
`go` in FOLDER; it creates the file `finished` after its last utterance. At the end this process prints the
number of samples of each utterance.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from dia_server.engine.engine import Engine
from dia_server.engine.types import Chunk, Utterance

UTTERANCES, CHUNKS, SAMPLES = 3, 20, 100_000
"""Number of utterances, chunks of each, and samples of a chunk: more bytes than any pipe holds."""


class WaitingModel:
    notes = ()
    slots = UTTERANCES

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left: dict[int, int] = {}
        self._together = False

    def admit(self, slot: int, utterance: Utterance) -> None:
        self._left[slot] = CHUNKS

    def step(self) -> dict[int, Chunk]:
        self._together = self._together or len(self._left) == UTTERANCES
        if not self._together:
            return {}
        while CHUNKS not in self._left.values() and not (self._folder / "go").exists():
            time.sleep(0.01)
        for slot in self._left:
            self._left[slot] -= 1
        samples = np.ones(SAMPLES, np.float32)
        return {slot: Chunk(samples, 1, 0.5, done=not left) for slot, left in self._left.items()}

    def release(self, slot: int) -> None:
        del self._left[slot]
        if not self._left:
            (self._folder / "finished").touch()

    def reset(self) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


def load(_: Callable[[float], None], *, folder: Path) -> WaitingModel:
    return WaitingModel(folder)


async def main(folder: Path) -> None:
    engine = Engine("dia", partial(load, folder=folder), max_waiting=8, own_process=True)
    engine.start()
    while not engine.ready:
        await asyncio.sleep(0.01)
    generations = [engine.submit(Utterance("Hi.", voice="", seed=0)) for _ in range(UTTERANCES)]
    first = [await anext(generation) for generation in generations]
    print("running", flush=True)
    for chunk, generation in zip(first, generations, strict=True):
        print(len(chunk.samples) + sum([len(chunk.samples) async for chunk in generation]), flush=True)
    await asyncio.to_thread(engine.stop)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
