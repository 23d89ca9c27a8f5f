"""Speech faster or slower at the same pitch."""

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from dia_server.errors import AudioProcessingError

MAX_STAGE = 2.0
"""FFmpeg's atempo takes 0.5 to 100, but beyond 2 it drops samples instead of blending them."""
TAIL_S = 0.5
"""Of silence put behind the input: more than two stages hold back at its end."""


def change_tempo(samples: NDArray[np.float32], sample_rate: int, speed: float) -> NDArray[np.float32]:
    """Return mono `samples` `speed` times as fast (0.25 to 4), the pitch kept (FFmpeg's atempo, WSOLA).

    The result is `len(samples) / speed` samples long.
    """
    if speed == 1.0:
        return samples
    padded = np.concatenate([samples, np.zeros(round(TAIL_S * sample_rate), np.float32)])
    try:
        return _run(_graph(sample_rate, speed), padded, sample_rate)[: round(len(samples) / speed)]
    except av.FFmpegError as error:
        raise AudioProcessingError(f"The speed could not be changed: {error}") from error


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


def _run(graph: av.filter.Graph, samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = sample_rate
    graph.push(frame)
    graph.push(None)
    pieces = []
    while True:
        try:
            pieces.append(graph.pull().to_ndarray()[0])
        except (av.EOFError, av.BlockingIOError):
            return np.concatenate(pieces)
