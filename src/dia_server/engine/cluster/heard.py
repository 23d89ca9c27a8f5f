"""Compares the replay of an utterance with what of it was delivered before its replica was lost."""

import zlib

from dia_server.engine.types import Samples


class Differs(Exception):
    """The replay is not the same as what was delivered."""


class Heard:
    """Samples delivered so far: their number and checksum."""

    def __init__(self) -> None:
        self.count = 0
        self._checksum = 0

    def add(self, samples: Samples) -> None:
        self.count += len(samples)
        self._checksum = zlib.crc32(samples.tobytes(), self._checksum)

    def replay(self) -> "Replay":
        """Return the comparison of another run of the utterance with what was delivered until now."""
        return Replay(self.count, self._checksum)


class Replay:
    def __init__(self, count: int, checksum: int) -> None:
        self._left = count
        self._wanted = checksum
        self._checksum = 0

    @property
    def caught_up(self) -> bool:
        """Whether everything that was delivered has been compared."""
        return self._left == 0

    def take(self, samples: Samples) -> Samples:
        """Return those of the next `samples` that were not delivered yet.

        Raises Differs once all that were delivered have been compared and are not the same.
        """
        if self.caught_up:
            return samples
        again, new = samples[: self._left], samples[self._left :]
        self._left -= len(again)
        self._checksum = zlib.crc32(again.tobytes(), self._checksum)
        if self.caught_up and self._checksum != self._wanted:
            raise Differs
        return new
