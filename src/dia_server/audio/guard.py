"""What is wrong with a finished piece of speech, as far as its samples show it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Fault = Literal["too_short", "too_long", "clipped", "silent", "cut_off"]

SHORTEST, LONGEST = 0.4, 2.5
"""Times the estimated duration. The estimate is right within a third for plain English; what falls
outside has lost words, or babbles after them."""
SLACK_S = 1.5
"""On top, since a word alone may be drawn out, laughed or followed by a breath."""

CLIPPED_SHARE = 0.002
"""Of all samples. Single peaks at full scale are not heard, runs of them are."""
FULL_SCALE, CLIPPED_RUN = 0.999, 3

WINDOW_S = 0.02
SILENCE = 10 ** (-45 / 20)
"""RMS of a window in which nobody speaks."""
LONGEST_SILENCE_S = 3.0
"""Within a piece: a speaker's longest thought, which the model's lost ones exceed."""

TAIL_S = 0.02
TAIL = 0.7
"""RMS at the very end against that of the speech: a word that ends has fallen below, one that is cut
off is as loud as any."""


@dataclass(frozen=True, slots=True)
class Verdict:
    faults: tuple[Fault, ...]
    duration_s: float
    clipped_share: float
    """Of the samples, those in runs at full scale."""
    longest_silence_s: float
    tail: float
    """RMS of the last TAIL_S against that of the speech, 1 being as loud; 0 where nothing is heard."""


def judge(samples: NDArray[np.float32], sample_rate: int, estimated_s: float) -> Verdict:
    """Judge one piece of mono speech in [-1, 1], before its tempo is changed or its ends are cut.

    `estimated_s` is what its text should take.
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
        "too_short": duration_s < estimated_s * SHORTEST - SLACK_S / 2,
        "too_long": duration_s > estimated_s * LONGEST + SLACK_S,
        "clipped": clipped_share > CLIPPED_SHARE,
        "silent": not len(audible) or longest_silence_s > LONGEST_SILENCE_S,
        "cut_off": tail > TAIL,
    }
    faults = tuple(fault for fault, is_so in found.items() if is_so)
    return Verdict(faults, duration_s, clipped_share, longest_silence_s, tail)


def _rms(samples: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def _levels(samples: NDArray[np.float32], window: int) -> NDArray[np.float64]:
    """RMS of each whole window."""
    windows = samples[: len(samples) // window * window].reshape(-1, window)
    levels: NDArray[np.float64] = np.sqrt(np.mean(windows.astype(np.float64) ** 2, axis=1))
    return levels


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return edges[1::2] - edges[::2]


def _longest_run(mask: NDArray[np.bool_]) -> int:
    return int(_runs(mask).max(initial=0))


def _clipped_share(samples: NDArray[np.float32]) -> float:
    runs = _runs(np.abs(samples) >= FULL_SCALE)
    return float(runs[runs >= CLIPPED_RUN].sum()) / max(1, len(samples))
