"""What one request has taken, and what it has given, so far."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dia_server.engine.types import SAMPLE_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a generation took and gave."""

    generation_s: float
    tokens: int
    """Decoder steps."""
    audio_s: float
    retries: int
    """How often the guard had segments made again."""
    faults: tuple[str, ...] = ()
    """What it found in segments that were put out all the same, in alphabetical order."""


@dataclass(slots=True)
class UsageMeter:
    tokens: int = 0
    """Decoder steps."""
    samples: int = 0
    retries: int = 0
    """How often the guard has had segments made again."""
    faults: set[str] = field(default_factory=set)
    """That the guard has found in segments which were put out all the same."""
    _making_s: float = 0.0
    _segments: int = 0
    _since: float = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count the time that a segment takes; that of several at once counts only once."""
        if not self._segments:
            self._since = time.perf_counter()
        self._segments += 1
        try:
            yield
        finally:
            self._segments -= 1
            if not self._segments:
                self._making_s += time.perf_counter() - self._since

    def total(self, speed: float) -> Usage:
        """What it comes to when all is made: the time that the client took to hear it is left out."""
        return Usage(
            generation_s=self._making_s,
            tokens=self.tokens,
            audio_s=self.samples / SAMPLE_RATE / speed,
            retries=self.retries,
            faults=tuple(sorted(self.faults)),
        )
