"""Where a recording has sound."""

from typing import Any

import numpy as np


def onsets(samples: np.ndarray[Any, Any]) -> list[tuple[float, float]]:
    """Return the seconds at which each sound begins and ends; sounds are apart by 0.2 s of silence."""
    window = 210
    levels = np.sqrt(np.mean(samples[: len(samples) // window * window].reshape(-1, window) ** 2, axis=1))
    loud = np.flatnonzero(levels > 0.003)
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > 40) + 1)
    return [(part[0] * window / 44100, (part[-1] + 1) * window / 44100) for part in parts]
