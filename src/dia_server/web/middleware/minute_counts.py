"""Counters over fixed windows of a minute."""

import time
from collections.abc import Callable, Hashable

WINDOW_S = 60


class MinuteCounts:
    """Counts by bucket; all counts are reset when a new minute begins."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._window = 0
        self._counts: dict[Hashable, int] = {}

    def add(self, bucket: Hashable) -> int:
        """Add one to the count of `bucket` and return its count in this minute."""
        if (window := int(self._clock() // WINDOW_S)) != self._window:
            self._window = window
            self._counts.clear()
        count = self._counts[bucket] = self._counts.get(bucket, 0) + 1
        return count

    @property
    def reset(self) -> int:
        """Unix time in seconds at which the minute of the last `add` ends."""
        return (self._window + 1) * WINDOW_S

    @property
    def wait_s(self) -> int:
        """Seconds until `reset`, at least 1."""
        return max(1, round(self.reset - self._clock()))
