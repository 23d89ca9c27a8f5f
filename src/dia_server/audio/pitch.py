"""Median pitch of a voice, by normalized cross-correlation.

torchaudio has a similar function, but its import takes a second and hundreds of MB of memory.
"""

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 60.0, 500.0
"""Range of the fundamental frequency in Hz: from deep men to children."""
RATE = 22_050
"""Approximate sample rate in Hz of the analysis. The pitch is exact to half a sample of the period: 1 % at
400 Hz."""
WINDOW_S, HOP_S = 0.03, 0.01
"""Seconds of audio that are compared with later audio, and seconds between such comparisons."""
VOICED = 0.75
"""Minimum correlation of a voiced frame; noise and hisses stay below."""
LOUD = 10 ** (-25 / 20)
"""Minimum RMS of a voiced frame, relative to the loudest frame: -25 dB."""
NEAR_BEST = 0.92
"""Share of the best correlation that the shortest period needs; all multiples of a period correlate too."""
FEWEST = 10
"""Minimum number of voiced frames (0.1 s)."""


def median_pitch(samples: NDArray[np.float32], sample_rate: int) -> float | None:
    """Return the median fundamental frequency of mono `samples` (n,) in Hz; None if almost none are voiced.

    10 s of audio take 60 ms.
    """
    step = max(1, round(sample_rate / RATE))
    rate = sample_rate / step
    audio = samples[: len(samples) // step * step].reshape(-1, step).mean(axis=1, dtype=np.float64)
    shortest, longest = int(rate / HIGHEST), int(rate / LOWEST)
    window = round(WINDOW_S * rate)
    if len(audio) < window + longest:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(audio, window + longest)[:: round(HOP_S * rate)]
    correlations = _correlate(frames, window, longest)[:, shortest:]
    loudness = np.sqrt(np.mean(frames[:, :window] ** 2, axis=1))
    best = correlations.max(axis=1)
    voiced = (best >= VOICED) & (loudness > LOUD * loudness.max())
    if np.count_nonzero(voiced) < FEWEST:
        return None
    periods = shortest + _first_peak(correlations[voiced], NEAR_BEST * best[voiced])
    return float(np.median(rate / periods))


def _correlate(frames: NDArray[np.float64], window: int, longest: int) -> NDArray[np.float64]:
    """Return the normalized cross-correlation of each frame's first `window` samples with later ones.

    `frames` has the shape (n, window + longest), the result (n, longest + 1): one column for each lag.
    """
    size = 1 << int(np.ceil(np.log2(frames.shape[1] + window)))
    spectrum = np.fft.rfft(frames, size) * np.conj(np.fft.rfft(frames[:, :window], size))
    products = np.fft.irfft(spectrum, size)[:, : longest + 1]
    sums = np.pad(np.cumsum(frames**2, axis=1), ((0, 0), (1, 0)))
    energies = sums[:, window:] - sums[:, :-window]
    scale = np.sqrt(np.maximum(energies * energies[:, :1], 1e-12))
    correlations: NDArray[np.float64] = products / scale
    return correlations


def _first_peak(correlations: NDArray[np.float64], least: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the column of the first local maximum of at least `least` in each row, else of the maximum."""
    padded = np.pad(correlations, ((0, 0), (1, 1)), constant_values=-1.0)
    is_peak = (correlations >= padded[:, :-2]) & (correlations >= padded[:, 2:])
    is_peak &= correlations >= least[:, None]
    columns: NDArray[np.intp] = is_peak.argmax(axis=1)
    return columns
