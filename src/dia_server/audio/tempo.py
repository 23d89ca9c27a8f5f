"""Changes the tempo of speech and keeps its pitch, for whole recordings and streams.

FFmpeg's atempo changes the tempo. This module passes it blocks of a fixed size and counts the samples, so
that the output does not depend on the sizes of the chunks pushed.
"""

from collections.abc import Iterator

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from dia_server.errors import AudioProcessingError

MAX_STAGE = 2.0
"""Maximum speed of one atempo filter (the minimum is 1 / MAX_STAGE). It accepts up to 100, but above 2 it
drops samples."""
BLOCK = 1024
"""Samples per filter call. Fixed, so that the output does not depend on the chunk sizes; small, because a
filter returns a block's output only after the next block."""
TAIL_S = 0.5
"""Seconds of silence appended to flush the filters; two filters in series hold back less than this."""


def change_tempo(samples: NDArray[np.float32], sample_rate: int, speed: float) -> NDArray[np.float32]:
    """Return mono `samples` (n,) at `speed` times the tempo: `round(n / speed)` samples."""
    tempo = Tempo(speed, sample_rate)
    return np.concatenate([tempo.push(samples), tempo.finish()])


class Tempo:
    """Streams mono samples at `speed` times their tempo (0.25 to 4) with their pitch unchanged (WSOLA).

    The output lags the input by at most 0.3 s of input; in total, n samples become `round(n / speed)`.
    Calls may come from different threads, but must not overlap. They may raise AudioProcessingError.
    """

    def __init__(self, speed: float, sample_rate: int) -> None:
        self._speed = speed
        self._rate = sample_rate
        self._graph = None if speed == 1.0 else _graph(sample_rate, speed)
        self._waiting = np.zeros(0, np.float32)  # input that does not yet fill a block
        self._samples_in = self._samples_out = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add `samples`; return the output that is ready, possibly none."""
        if self._graph is None:
            return samples
        self._samples_in += len(samples)
        waiting = np.concatenate([self._waiting, samples])
        whole = len(waiting) // BLOCK * BLOCK
        self._waiting = waiting[whole:].copy()  # not a view, which would keep all of `waiting`
        output = self._run(self._graph, waiting[:whole].reshape(-1, BLOCK))
        self._samples_out += len(output)
        return output

    def finish(self) -> NDArray[np.float32]:
        """Return the rest of the output. Call `push` no more afterwards."""
        if self._graph is None:
            return np.zeros(0, np.float32)
        left = round(self._samples_in / self._speed) - self._samples_out
        tail = np.concatenate([self._waiting, np.zeros(round(TAIL_S * self._rate), np.float32)])
        tail = np.pad(tail, (0, -len(tail) % BLOCK))
        return self._run(self._graph, tail.reshape(-1, BLOCK))[:left]

    def _run(self, graph: av.filter.Graph, blocks: NDArray[np.float32]) -> NDArray[np.float32]:
        output = [np.zeros(0, np.float32)]
        try:
            for block in blocks:
                frame = av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
                frame.sample_rate = self._rate
                graph.push(frame)
                output += _ready(graph)
        except av.FFmpegError as error:
            raise AudioProcessingError(f"The speed could not be changed: {error}") from error
        return np.concatenate(output)


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
