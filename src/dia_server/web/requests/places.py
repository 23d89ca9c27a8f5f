"""Places for what clients may do at the same time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from dia_server.errors import Overloaded

RETRY_S = 10
"""Seconds after which a client that found no place may try again."""


class Places:
    """At most `total` at the same time, and `each` of them for one client address."""

    def __init__(self, what: str, *, total: int, each: int) -> None:
        self._what = what
        self._total = total
        self._each = each
        self._taken: Counter[str] = Counter()

    @contextmanager
    def take(self, address: str) -> Iterator[None]:
        """Hold a place; raises Overloaded where none is free."""
        if self._taken[address] >= self._each:
            raise Overloaded(
                f"{self._each} {self._what} of one address are open already", retry_after=RETRY_S
            )
        if self._taken.total() >= self._total:
            raise Overloaded(f"{self._total} {self._what} are open already", retry_after=RETRY_S)
        self._taken[address] += 1
        try:
            yield
        finally:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]
