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
    def minute(self) -> int:
        return int(self.at // WINDOW_S)

    @property
    def reset(self) -> int:
        """Unix time in seconds at which the minute ends."""
        return (self.minute + 1) * WINDOW_S

    @property
    def wait_s(self) -> int:
        """Seconds until `reset`, at least 1."""
        return max(1, round(self.reset - self.at))


class MinuteCounts:
    """Counts by bucket; all counts are reset when a new minute begins."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._minute = 0
        self._counts: dict[Hashable, int] = {}

    def add(self, bucket: Hashable) -> Count:
        """Add one to the count of `bucket` and return its count in this minute."""
        at = self._clock()
        value = self._counts.get(bucket, 0) + 1
        count = Count(value, at)
        if count.minute != self._minute:
            self._minute = count.minute
            self._counts.clear()
            count = Count(1, at)
        self._counts[bucket] = count.value
        return count
