"""Finds where the words of a recording begin and end, from the rough starts that a model reports."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dia_server.audio.join import SILENCE

WINDOW_S = 0.005
"""Seconds of a window, which is silent if its RMS is."""
MIN_GAP_S = 0.04
"""Minimum seconds of silence that separates two words."""


@dataclass(frozen=True, slots=True)
class Bounds:
    start: int
    """Index of the first sample."""
    end: int
    """Index after the last sample."""
    estimated: bool
    """Whether `start` or `end` is interpolated, by numbers of letters, between words whose start is known."""


def word_bounds(
    samples: NDArray[np.float32],
    sample_rate: int,
    starts: Sequence[int | None],
    lengths: Sequence[int],
    *,
    slack_s: float,
) -> list[Bounds]:
    """Return the bounds of each word of the mono `samples` (n,).

    `starts` are the words' first samples, in ascending order, or None where they are not known; `lengths` are
    their letters. A word ends where the next one starts. If there is silence at that place, or within
    `slack_s` of it, the first word ends where the silence begins, and the second one starts where it ends.
    """
    known = _interpolated(starts, lengths, len(samples))
    begins, ends = [*known], [*known[1:], len(samples)]
    gaps = _gaps(samples, sample_rate)
    slack = slack_s * sample_rate
    for index in range(1, len(known)):
        if gap := _nearest(gaps, known[index], slack):
            ends[index - 1], begins[index] = gap
    if len(gaps) and known and gaps[0][0] <= begins[0] < gaps[0][1]:
        begins[0] = int(gaps[0][1])
    if len(gaps) and known and gaps[-1][1] == len(samples):
        ends[-1] = int(gaps[-1][0])
    return _ordered(begins, ends, starts)


def _ordered(begins: list[int], ends: list[int], starts: Sequence[int | None]) -> list[Bounds]:
    """Return the bounds in ascending order: two words may have been moved to the same silence."""
    exact = [True, *(start is not None for start in starts[1:]), True]
    bounds: list[Bounds] = []
    for index, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        begin = max(begin, bounds[-1].end if bounds else 0)
        bounds.append(Bounds(begin, max(begin, end), not (exact[index] and exact[index + 1])))
    return bounds


def _interpolated(starts: Sequence[int | None], lengths: Sequence[int], end: int) -> list[int]:
    """Return `starts`, with those that are None placed between their neighbours by the words' lengths."""
    if not starts:
        return []
    letters = np.concatenate([[0], np.cumsum(lengths)])
    fixed = {0: 0, len(starts): end} | {
        index: start for index, start in enumerate(starts) if start is not None
    }
    at = sorted(fixed)
    places = np.interp(letters[:-1], letters[at], np.maximum.accumulate([fixed[index] for index in at]))
    return [round(float(place)) for place in places]


def _gaps(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.intp]:
    """Return the first and the last index (exclusive) of each silence, shape (n, 2).

    Silence at either end has any length, others have at least MIN_GAP_S.
    """
    window = round(WINDOW_S * sample_rate)
    padded = np.pad(samples, (0, -len(samples) % window)).reshape(-1, window)
    silent = np.sqrt(np.mean(padded.astype(np.float64) ** 2, axis=1)) <= SILENCE
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]]).astype(np.int8)))
    gaps = np.minimum(edges.reshape(-1, 2) * window, len(samples))
    is_long = gaps[:, 1] - gaps[:, 0] >= MIN_GAP_S * sample_rate
    separate: NDArray[np.intp] = gaps[is_long | (gaps[:, 0] == 0) | (gaps[:, 1] == len(samples))]
    return separate


def _nearest(gaps: NDArray[np.intp], place: int, slack: float) -> tuple[int, int] | None:
    """Return the silence nearest to `place`, at most `slack` samples away; None if there is none."""
    if not len(gaps):
        return None
    distances = np.maximum(0, np.maximum(gaps[:, 0] - place, place - gaps[:, 1]))
    nearest = int(np.argmin(distances))
    if distances[nearest] > slack:
        return None
    return int(gaps[nearest][0]), int(gaps[nearest][1])
