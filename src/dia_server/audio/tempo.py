"""Speech faster or slower at the same pitch: whole, or as it comes."""

from collections.abc import Iterator

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from dia_server.errors import AudioProcessingError

MAX_STAGE = 2.0
"""FFmpeg's atempo takes 0.5 to 100, but beyond 2 it drops samples instead of blending them."""
BLOCK = 1024
"""Samples given to the filter at once. Always the same, so that the result does not depend on how the
input was cut; small, because a stage gives out what it made of one block only when it gets the next."""
TAIL_S = 0.5
"""Of silence put behind the input: more than two stages hold back at its end."""


def change_tempo(samples: NDArray[np.float32], sample_rate: int, speed: float) -> NDArray[np.float32]:
    """Return mono `samples` `speed` times as fast, in `round(len(samples) / speed)` samples."""
    tempo = Tempo(speed, sample_rate)
    return np.concatenate([tempo.push(samples), tempo.finish()])


class Tempo:
    """Mono samples in, the same `speed` times as fast (0.25 to 4) out, the pitch kept (WSOLA).

    What comes out lags what went in by 0.3 s of input at most; n samples in are `round(n / speed)` out
    in the end. Calls may come from different threads, but not at the same time; they raise
    AudioProcessingError.
    """

    def __init__(self, speed: float, sample_rate: int) -> None:
        self._speed = speed
        self._rate = sample_rate
        self._graph = None if speed == 1.0 else _graph(sample_rate, speed)
        self._waiting = np.zeros(0, np.float32)  # less than a block
        self._taken = self._given = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what is ready; it may be nothing."""
        if self._graph is None:
            return samples
        self._taken += len(samples)
        waiting = np.concatenate([self._waiting, samples])
        whole = len(waiting) // BLOCK * BLOCK
        self._waiting = waiting[whole:].copy()  # not a view, which would keep all of `waiting`
        made = self._run(self._graph, waiting[:whole].reshape(-1, BLOCK))
        self._given += len(made)
        return made

    def finish(self) -> NDArray[np.float32]:
        """Return the rest; nothing may be pushed any more."""
        if self._graph is None:
            return np.zeros(0, np.float32)
        left = round(self._taken / self._speed) - self._given
        tail = np.concatenate([self._waiting, np.zeros(round(TAIL_S * self._rate), np.float32)])
        tail = np.pad(tail, (0, -len(tail) % BLOCK))
        return self._run(self._graph, tail.reshape(-1, BLOCK))[:left]

    def _run(self, graph: av.filter.Graph, blocks: NDArray[np.float32]) -> NDArray[np.float32]:
        made = [np.zeros(0, np.float32)]
        try:
            for block in blocks:
                frame = av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
                frame.sample_rate = self._rate
                graph.push(frame)
                made += _ready(graph)
        except av.FFmpegError as error:
            raise AudioProcessingError(f"The speed could not be changed: {error}") from error
        return np.concatenate(made)


def _graph(sample_rate: int, speed: float) -> av.filter.Graph:
    stages = 1 if 1 / MAX_STAGE <= speed <= MAX_STAGE else 2
    graph = av.filter.Graph()
    nodes = [
        graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono"),
        *(graph.add("atempo", str(speed ** (1 / stages))) for _ in range(stages)),
        graph.add("abuffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    return graph


def _ready(graph: av.filter.Graph) -> Iterator[NDArray[np.float32]]:
    while True:
        try:
            frame = graph.pull()
        except av.BlockingIOError:
            return
        assert isinstance(frame, av.AudioFrame)
        yield frame.to_ndarray()[0]
