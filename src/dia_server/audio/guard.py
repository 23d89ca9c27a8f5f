"""Detects faults of a generated segment from its samples alone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Fault = Literal["too_short", "too_long", "clipped", "silent", "cut_off"]

MIN_RATIO, MAX_RATIO = 0.4, 2.5
"""Minimum and maximum ratio of duration to estimated duration. The estimate is right within a third for plain
English. Speech below the minimum has lost words; speech above the maximum babbles."""
SLACK_S = 1.5
"""Seconds added to the maximum duration (MAX_RATIO * estimate), and half as many taken from the minimum: a
word may be drawn out."""

CLIPPED_SHARE = 0.002
"""Maximum share of clipped samples. Only runs of CLIPPED_RUN or more count: single peaks at full scale are
inaudible."""
FULL_SCALE, CLIPPED_RUN = 0.999, 3
"""Minimum amplitude of a clipped sample, and minimum consecutive samples that count as clipped."""

WINDOW_S = 0.02
"""Seconds of a window for RMS levels."""
SILENCE = 10 ** (-45 / 20)
"""Maximum RMS (-45 dBFS) of a window without speech."""
LONGEST_SILENCE_S = 3.0
"""Maximum seconds of silence within a segment: longer than any natural pause."""

TAIL_S = 0.02
"""Seconds at a segment's end whose RMS is compared with that of the speech."""
TAIL = 0.7
"""Maximum ratio of the RMS at the end to that of the speech: a finished word fades, a cut word does not."""


@dataclass(frozen=True, slots=True)
class Verdict:
    faults: tuple[Fault, ...]
    duration_s: float
    clipped_share: float
    """Share of samples in runs of at least CLIPPED_RUN at full scale."""
    longest_silence_s: float
    tail: float
    """Ratio of the RMS of the last TAIL_S to that of the speech; 0 if there is no speech."""


def judge(samples: NDArray[np.float32], sample_rate: int, estimated_s: float) -> Verdict:
    """Judge a segment: mono samples (n,) in [-1, 1], before its tempo is changed or its ends are trimmed.

    `estimated_s` is the estimated duration of its text in seconds.
    """
    duration_s = len(samples) / sample_rate
    clipped_share = _clipped_share(samples)
    levels = _levels(samples, round(WINDOW_S * sample_rate))
    audible = levels[levels > SILENCE]
    longest_silence_s = _longest_run(levels <= SILENCE) * WINDOW_S
    tail = 0.0
    if len(audible):
        tail = _rms(samples[-round(TAIL_S * sample_rate) :]) / float(np.sqrt(np.mean(audible**2)))
    found: dict[Fault, bool] = {
        "too_short": duration_s < estimated_s * MIN_RATIO - SLACK_S / 2,
        "too_long": duration_s > estimated_s * MAX_RATIO + SLACK_S,
        "clipped": clipped_share > CLIPPED_SHARE,
        "silent": not len(audible) or longest_silence_s > LONGEST_SILENCE_S,
        "cut_off": tail > TAIL,
    }
    faults = tuple(fault for fault, is_so in found.items() if is_so)
    return Verdict(faults, duration_s, clipped_share, longest_silence_s, tail)


def _rms(samples: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def _levels(samples: NDArray[np.float32], window: int) -> NDArray[np.float64]:
    """Return the RMS of each full window, shape (len(samples) // window,)."""
    windows = samples[: len(samples) // window * window].reshape(-1, window)
    levels: NDArray[np.float64] = np.sqrt(np.mean(windows.astype(np.float64) ** 2, axis=1))
    return levels


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the length of each run of True in `mask`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return edges[1::2] - edges[::2]


def _longest_run(mask: NDArray[np.bool_]) -> int:
    return int(_runs(mask).max(initial=0))


def _clipped_share(samples: NDArray[np.float32]) -> float:
    runs = _runs(np.abs(samples) >= FULL_SCALE)
    return float(runs[runs >= CLIPPED_RUN].sum()) / max(1, len(samples))
