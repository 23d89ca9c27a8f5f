"""Counters over fixed windows of a minute, in the memory of this server."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class Count:
    """A count within a minute, and when it was taken."""

    value: int
    at: float
    """Unix time in seconds."""

    @property
    def reset(self) -> int:
        """Unix time in seconds at which the minute ends."""
        return (int(self.at // WINDOW_S) + 1) * WINDOW_S

    @property
    def wait_s(self) -> int:
        """Seconds until `reset`, at least 1."""
        return max(1, round(self.reset - self.at))


class MinuteCounts:
    """Counts by bucket; all counts are reset when a new minute begins."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._minute = 0
        self._at = 0.0
        self._counts: dict[Hashable, int] = {}

    def add(self, bucket: Hashable) -> Count:
        """Add one to the count of `bucket` and return its count in this minute."""
        count = self._counts[bucket] = self.get(bucket) + 1
        return Count(count, self._at)

    def get(self, bucket: Hashable) -> int:
        """Return the count of `bucket` in this minute."""
        self._at = self._clock()
        if (minute := int(self._at // WINDOW_S)) != self._minute:
            self._minute = minute
            self._counts.clear()
        return self._counts.get(bucket, 0)
