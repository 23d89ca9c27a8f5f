"""Order of a voice's candidates, the most promising first."""

import math
from collections.abc import Collection, Sequence

from dia_server.services.voices.candidates import Candidate

SEMITONES = 12
"""Semitones of an octave."""


def rank(candidates: Sequence[Candidate], pitches: Collection[float]) -> list[Candidate]:
    """Return completed candidates in the order of their quality, then pending and failed ones.

    Fewer faults go first, then fewer word errors (in steps of 0.1). Then the style decides: "deep" prefers a
    low pitch, "bright" a high one, and any other style a pitch far from `pitches`, the median pitches of the
    other voices in Hz.
    """
    completed = [candidate for candidate in candidates if candidate.status == "completed"]
    completed.sort(key=lambda candidate: _key(candidate, pitches))
    others = [
        candidate
        for status in ("pending", "failed")
        for candidate in candidates
        if candidate.status == status
    ]
    return completed + others


def _key(candidate: Candidate, pitches: Collection[float]) -> tuple[int, float, float]:
    return (
        len(candidate.faults),
        round(candidate.word_errors or 0.0, 1),
        -_distinction(candidate.style, candidate.pitch, pitches),
    )


def _distinction(style: str, pitch: float | None, pitches: Collection[float]) -> float:
    """Return how well a pitch in Hz suits the style, in semitones; higher is better."""
    if pitch is None:
        return -math.inf
    match style.lower():
        case "deep":
            return -SEMITONES * math.log2(pitch)
        case "bright":
            return SEMITONES * math.log2(pitch)
    return min((abs(SEMITONES * math.log2(pitch / other)) for other in pitches), default=0.0)
