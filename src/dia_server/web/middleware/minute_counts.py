"""Counts of what happens in each minute."""

import time
from collections.abc import Callable, Hashable

WINDOW_S = 60


class MinuteCounts:
    """Fixed windows of a minute; all counts are forgotten when the next one begins."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._window = 0
        self._counts: dict[Hashable, int] = {}

    def add(self, bucket: Hashable) -> int:
        """Count once more, and return the number of this minute."""
        if (window := int(self._clock() // WINDOW_S)) != self._window:
            self._window = window
            self._counts.clear()
        count = self._counts[bucket] = self._counts.get(bucket, 0) + 1
        return count

    @property
    def reset(self) -> int:
        """When the next minute begins, in Unix seconds."""
        return (self._window + 1) * WINDOW_S

    @property
    def wait_s(self) -> int:
        """Seconds until then."""
        return max(1, round(self.reset - self._clock()))
