"""Leadership: one server of a database does the work that must not be done by several at a time."""

from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Leadership:
    """On SQLite, the only server leads; on PostgreSQL, the one that holds a lock."""

    def __init__(self, *, leads: bool) -> None:
        self.leads = leads
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` on the event loop each time this server begins to lead."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        self._listeners.remove(listener)

    def set(self, leads: bool) -> None:
        """Begin to lead, or cease to."""
        self.leads = leads
        log.info("leading" if leads else "no longer leading")
        if leads:
            for listener in self._listeners:
                listener()
