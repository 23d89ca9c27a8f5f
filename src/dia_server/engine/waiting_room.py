"""The utterances that wait for a slot, and the rules by which they get one.

Requests share the slots fairly between clients (see FairQueue). Background work yields to requests, but is
not starved by them.
"""

from collections import deque
from collections.abc import Collection

from dia_server.engine.generation import Generation
from dia_server.engine.queue import FairQueue
from dia_server.errors import Overloaded

FAIR_SHARE = 5
"""Divisor: while requests and background work both wait, 1/5 of the admissions go to background work."""
RESERVED_SHARE = 8
"""Divisor: 1/8 of the slots, rounded down but at least one, is reserved for requests; background work never
uses these. If there is only one slot, background work may use it too."""
CLIENT_SHARE = 8
"""Divisor: one client may fill the request queue except for 1/8 of its places, rounded down. The same share
of the slots, but at most NEWCOMER_SLOTS, is kept for clients that hold no slot."""
NEWCOMER_SLOTS = 2
"""Maximum slots kept for clients that hold none: 2 of 16 or more slots, 1 of 8 to 15, 0 of fewer. With
four slots, keeping one free would cost a single user a quarter of the throughput."""
OVERLOADED_RETRY_S = 2
"""Retry-After, in seconds, for requests refused because the queue is full."""


class WaitingRoom:
    """Two queues: of requests, and of background work. Only `len` and `count` are thread-safe."""

    def __init__(self, max_requests: int) -> None:
        """The queue of requests holds up to `max_requests`; that of background work is unbounded, because
        the job worker limits what it submits."""
        self._max_requests = max_requests
        self._requests = FairQueue()
        self._background: deque[Generation] = deque()
        self._passed = 0
        """Number of admissions of requests since the last one of background work."""

    def __len__(self) -> int:
        return len(self._requests) + len(self._background)

    def count(self, *, background: bool) -> int:
        """Return the length of the background queue or of the request queue."""
        return len(self._background if background else self._requests)

    def add(self, generation: Generation) -> None:
        """Queue a generation.

        Raises Overloaded for a request if the queue of requests, or its client's share of it, is full.
        """
        if generation.background:
            self._background.append(generation)
        else:
            self._require_room(generation.utterance.flow.client)
            self._requests.push(generation)

    def discard(self, generation: Generation) -> None:
        """Remove `generation`; do nothing if it does not wait."""
        if not generation.background:
            self._requests.discard(generation)
        elif generation in self._background:
            self._background.remove(generation)

    def take(self, busy: Collection[Generation], slots: int) -> Generation | None:
        """Remove and return the next generation, or None if no waiting one may take a slot now.

        `busy` are the generations that hold one of the `slots`. The last free slots (see NEWCOMER_SLOTS) are
        kept for clients without a running request. Background work is admitted if no request is queued;
        otherwise it gets one of FAIR_SHARE admissions, and only that one may take one of the last free slots.
        Background work never takes the slots reserved for requests (see RESERVED_SHARE).
        """
        requests = [generation for generation in busy if not generation.background]
        kept = min(NEWCOMER_SLOTS, slots // CLIENT_SHARE)
        newcomers_only = slots - len(busy) <= kept
        allowed = max(1, slots - max(1, slots // RESERVED_SHARE))
        due = self._requests and self._passed + 1 >= FAIR_SHARE
        may_run = (due or not newcomers_only) and len(busy) - len(requests) < allowed
        if self._background and may_run and (due or not self._requests):
            self._passed = 0
            return self._background.popleft()
        if (generation := self._requests.pop(requests, newcomers_only=newcomers_only)) is not None:
            self._passed += 1
        return generation

    def clear(self) -> list[Generation]:
        """Remove and return all generations."""
        waiting = [*self._requests, *self._background]
        self._requests.clear()
        self._background.clear()
        return waiting

    def _require_room(self, client: str) -> None:
        places, whose = self._max_requests, ""
        full = len(self._requests) >= places
        if not full:
            places, whose = places - places // CLIENT_SHARE, " of this client"
            full = self._requests.waiting_of(client) >= places
        if full:
            raise Overloaded(
                f"{places} requests{whose} are waiting already (DIA_MAX_WAITING)",
                limit=places,
                retry_after=OVERLOADED_RETRY_S,
            )
