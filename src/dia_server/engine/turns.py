"""Turns that flows take: clients first, then the requests of a client."""

from collections.abc import Iterable

from dia_server.engine.types import Flow


class Turns:
    """Remembers when each client and each request had its last turn."""

    def __init__(self) -> None:
        self._count = 0
        self._last: dict[str | Flow, int] = {}

    def last(self, name: str | Flow) -> int:
        """Return the number of the last turn of a client or a request.

        One that is new goes before the one whose turn was the last, but after those that wait longer:
        requests that come without end would otherwise each go before a long one.
        """
        return self._last.setdefault(name, self._count - 1)

    def record_turn(self, flow: Flow) -> None:
        """Note a turn of `flow`, and so of its client."""
        self._count += 2  # the number between is for those that are new
        self._last[flow.client] = self._last[flow] = self._count

    def forget_all_but(self, flows: Iterable[Flow]) -> None:
        """Forget clients and requests that are gone, so that memory stays bounded."""
        kept = {name for flow in flows for name in (flow, flow.client)}
        self._last = {name: turn for name, turn in self._last.items() if name in kept}
