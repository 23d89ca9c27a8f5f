"""Turn counter for fair scheduling of clients and, within a client, of its requests."""

from collections.abc import Iterable

from dia_server.engine.types import Flow


class Turns:
    """Remembers the last turn of each client and each request."""

    def __init__(self) -> None:
        self._count = 0
        self._last: dict[str | Flow, int] = {}

    def last(self, name: str | Flow) -> int:
        """Return the number of the last turn of a client or a request; lower numbers go first.

        A client or request without a turn is given, at the first call, the number just below the latest turn:
        it goes before the latest and after all earlier turns. If new requests went before all others, they
        could starve a long one.
        """
        return self._last.setdefault(name, self._count - 1)

    def record_turn(self, flow: Flow) -> None:
        """Record a turn of the request `flow` and of its client."""
        self._count += 2  # by 2, so that `last` has a free number just below the latest turn
        self._last[flow.client] = self._last[flow] = self._count

    def forget_all_but(self, flows: Iterable[Flow]) -> None:
        """Forget all clients and requests except those of `flows`, so that memory stays bounded."""
        kept = {name for flow in flows for name in (flow, flow.client)}
        self._last = {name: turn for name, turn in self._last.items() if name in kept}
