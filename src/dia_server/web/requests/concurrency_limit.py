"""Limits concurrent operations in total and per client address."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from dia_server.errors import Overloaded

RETRY_S = 10
"""Retry-After of refused operations in seconds."""


class ConcurrencyLimit:
    """Allows `total` concurrent operations, at most `each` per client address.

    `what` is the name of the operations in errors.
    """

    def __init__(self, what: str, *, total: int, each: int) -> None:
        self._what = what
        self._total = total
        self._each = each
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, address: str) -> Iterator[None]:
        """Count an operation of `address` while in the context; raises Overloaded if a limit is reached."""
        if self._held[address] >= self._each:
            raise Overloaded(
                f"Too many concurrent {self._what} from this address: the limit is {self._each}",
                limit=self._each,
                retry_after=RETRY_S,
            )
        if self._held.total() >= self._total:
            raise Overloaded(
                f"Too many concurrent {self._what}: the limit is {self._total}",
                limit=self._total,
                retry_after=RETRY_S,
            )
        self._held[address] += 1
        try:
            yield
        finally:
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]
