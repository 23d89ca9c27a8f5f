"""Recordings travel once: an utterance names them by digest, and a replica keeps the most recent ones."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np

from dia_server.engine.types import Recording, Utterance
from dia_server.units import MIB

MAX_BYTES = 256 * MIB
"""Maximum bytes of the recordings that a replica keeps: 25 minutes."""
NO_SAMPLES = np.zeros(0, np.float32)


def without_samples(utterance: Utterance) -> Utterance:
    """Return `utterance` with recordings that have a digest only."""
    if (prompt := utterance.prompt) is None:
        return utterance
    parts = tuple(
        replace(part, samples=NO_SAMPLES) if isinstance(part, Recording) else part for part in prompt.parts
    )
    return replace(utterance, prompt=replace(prompt, parts=parts))


class Recordings:
    """The recordings of a replica, by digest, least recently used first (an LRU cache)."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Recording] = OrderedDict()

    def complete(self, utterance: Utterance) -> Utterance | None:
        """Return `utterance` with the samples of its recordings, which are kept; None if some are missing."""
        if (prompt := utterance.prompt) is None:
            return utterance
        parts = []
        for part in prompt.parts:
            if isinstance(part, Recording):
                if len(part.samples):
                    self._keep(part)
                elif part.digest not in self._kept:
                    return None
                part = self._kept[part.digest]
                self._kept.move_to_end(part.digest)
            parts.append(part)
        return replace(utterance, prompt=replace(prompt, parts=tuple(parts)))

    def _keep(self, recording: Recording) -> None:
        self._kept[recording.digest] = recording
        while (
            len(self._kept) > 1 and sum(one.samples.nbytes for one in self._kept.values()) > self._max_bytes
        ):
            self._kept.popitem(last=False)
