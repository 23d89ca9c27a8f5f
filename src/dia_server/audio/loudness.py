"""Loudness of speech by EBU R128, the gain that makes voices equally loud, and the limiter after it."""

import math

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from dia_server.errors import AudioProcessingError

TARGET = -18.0
"""Integrated loudness of delivered speech in LUFS, as AES TD1008 recommends for speech that is streamed."""
CEILING_DB = -1.0
"""Maximum sample peak of delivered speech in dBFS; lossy codecs need a margin to full scale."""
CEILING = 10 ** (CEILING_DB / 20)
KNEE = 10 ** (-3 / 20)
"""Amplitude (-3 dBFS) above which the limiter changes samples."""
MAX_EXCESS_DB = 6.0
"""Maximum decibels by which the gain may lift the peak of a recording above the ceiling. Of 27 recordings of
speech, all reach TARGET with it, and the limiter changes at most 0.3 % of the samples."""

BLOCK_S = 0.4
"""Seconds of the blocks whose power R128 averages."""
SHORT_S = 10 * BLOCK_S
"""Seconds to which audio shorter than a block is repeated."""
SILENCE = -70.0
"""Loudness in LUFS (R128's absolute gate) that FFmpeg reports if no block is louder."""


def measure(samples: NDArray[np.float32], sample_rate: int) -> float | None:
    """Return the integrated loudness of mono `samples` (n,) in LUFS by EBU R128; None if they are silent.

    Audio shorter than BLOCK_S, for which R128 has no loudness, is repeated: this gives the power of the
    whole audio. Raises AudioProcessingError.
    """
    if not samples.any():
        return None
    if len(samples) < BLOCK_S * sample_rate:
        samples = np.tile(samples, math.ceil(SHORT_S * sample_rate / len(samples)))
    try:
        loudness = _integrated(samples, sample_rate)
    except av.FFmpegError as error:
        raise AudioProcessingError(f"The loudness could not be measured: {error}") from error
    return loudness if loudness > SILENCE else None


def gain_db(samples: NDArray[np.float32], sample_rate: int) -> float:
    """Return the decibels that bring a voice to TARGET; `samples` (n,), mono, are speech of that voice.

    The gain lifts the peak of `samples` at most MAX_EXCESS_DB above the ceiling. It is 0 if they are silent.
    Raises AudioProcessingError.
    """
    loudness = measure(samples, sample_rate)
    if loudness is None:
        return 0.0
    peak_db = 20 * math.log10(float(np.abs(samples).max()))
    return min(TARGET - loudness, CEILING_DB + MAX_EXCESS_DB - peak_db)


def amplify(samples: NDArray[np.float32], gain_db: float) -> NDArray[np.float32]:
    """Return `samples` times the gain, limited to CEILING by a quadratic curve above KNEE.

    Each sample depends on the same sample of the input only. So there is no delay, and the result does not
    depend on how a recording is cut into chunks.
    """
    louder = samples * np.float32(10 ** (gain_db / 20))
    amplitude = np.abs(louder)
    room = np.float32(CEILING - KNEE)
    # the curve's slope falls from 1 at KNEE to 0 at CEILING, which an amplitude of KNEE + 2 * room reaches
    excess = np.clip((amplitude - np.float32(KNEE)) / room, 0, 2)
    limited = np.minimum(amplitude, np.float32(KNEE)) + room * (excess - excess * excess / 4)
    output: NDArray[np.float32] = np.copysign(np.minimum(limited, np.float32(CEILING)), louder)
    return output


def _integrated(samples: NDArray[np.float32], sample_rate: int) -> float:
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono"),
        graph.add("ebur128", "metadata=1:framelog=quiet"),
        graph.add("abuffersink"),
    ).configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
    frame.sample_rate = sample_rate
    graph.push(frame)
    graph.push(None)
    loudness = SILENCE
    while True:
        try:
            measured = graph.pull()
        except av.EOFError:
            return loudness
        # each frame has the loudness so far, except one of less than 0.1 s at the end
        loudness = float(measured.metadata.get("lavfi.r128.I", loudness))
