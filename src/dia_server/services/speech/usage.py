"""Measures the cost and the output of one request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dia_server.units import SAMPLE_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Cost and output of one generation."""

    generation_s: float
    tokens: int
    """Number of decode steps, including those of retries."""
    audio_s: float
    retries: int
    """Number of retries of faulty segments."""
    faults: tuple[str, ...] = ()
    """Names of the faults that remain in the audio, in alphabetical order."""


@dataclass(slots=True)
class UsageMeter:
    tokens: int = 0
    """Number of decode steps, including those of retries."""
    samples: int = 0
    retries: int = 0
    """Number of retries of faulty segments."""
    faults: set[str] = field(default_factory=set)
    """Names of the faults that remain in the audio."""
    _generation_s: float = 0.0
    _segments: int = 0
    _since: float = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measure the time of the `with` block, which generates one segment.

        Time in which several segments are generated at once counts only once.
        """
        if not self._segments:
            self._since = time.perf_counter()
        self._segments += 1
        try:
            yield
        finally:
            self._segments -= 1
            if not self._segments:
                self._generation_s += time.perf_counter() - self._since

    def total(self, speed: float) -> Usage:
        """Return the request's usage. `audio_s` is the duration of audio encoded with the tempo `speed`.

        `generation_s` excludes time blocked on a slow client.
        """
        return Usage(
            generation_s=self._generation_s,
            tokens=self.tokens,
            audio_s=self.samples / SAMPLE_RATE / speed,
            retries=self.retries,
            faults=tuple(sorted(self.faults)),
        )
