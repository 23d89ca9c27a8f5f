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

        A new name ranks just before the latest turn, thus behind all that have waited longer. If new names
        ranked first, an endless series of new requests would starve a long one.
        """
        return self._last.setdefault(name, self._count - 1)

    def record_turn(self, flow: Flow) -> None:
        """Record a turn of the request `flow` and of its client."""
        self._count += 2  # the odd number before it is the rank of new names
        self._last[flow.client] = self._last[flow] = self._count

    def forget_all_but(self, flows: Iterable[Flow]) -> None:
        """Forget all other clients and requests, so that memory stays bounded."""
        kept = {name for flow in flows for name in (flow, flow.client)}
        self._last = {name: turn for name, turn in self._last.items() if name in kept}
