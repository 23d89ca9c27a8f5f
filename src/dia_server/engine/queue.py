"""Queue for slots, fair between clients and between the requests of one client.

The next slot goes to the client that holds the fewest slots and, among its queued requests, to the one that
holds the fewest. Ties go to the client or request whose last turn is the oldest. A new client therefore waits
for one free slot, however many utterances of other clients are queued.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator

from dia_server.engine.generation import Generation
from dia_server.engine.turns import Turns
from dia_server.engine.types import Flow


class FairQueue:
    """Fair queue of generations. Only `len` is thread-safe; callers hold a lock for everything else."""

    def __init__(self) -> None:
        self._clients: dict[str, dict[Flow, deque[Generation]]] = {}
        self._turns = Turns()
        self._length = 0

    def __iter__(self) -> Iterator[Generation]:
        for flows in self._clients.values():
            for waiting in flows.values():
                yield from waiting

    def __len__(self) -> int:
        return self._length

    def waiting_of(self, client: str) -> int:
        return sum(map(len, self._clients.get(client, {}).values()))

    def push(self, generation: Generation) -> None:
        """Add `generation` at the end of its request's queue."""
        flow = generation.utterance.flow
        self._clients.setdefault(flow.client, {}).setdefault(flow, deque()).append(generation)
        self._length += 1

    def discard(self, generation: Generation) -> None:
        """Remove `generation`; do nothing if it is not queued."""
        flow = generation.utterance.flow
        waiting = self._clients.get(flow.client, {}).get(flow)
        if waiting and generation in waiting:
            waiting.remove(generation)
            self._removed_from(flow)

    def pop(self, running: Collection[Generation], *, newcomers_only: bool = False) -> Generation | None:
        """Remove and return the next generation, or None if none is eligible.

        `running` are the generations whose slots count as held by their clients and requests. With
        `newcomers_only`, only clients that hold no slot are eligible.
        """
        flows = [generation.utterance.flow for generation in running]
        held: Counter[str | Flow] = Counter(flows)
        held.update(flow.client for flow in flows)
        clients = [client for client in self._clients if not (newcomers_only and held[client])]
        if not clients:
            return None

        def turn(name: str | Flow) -> tuple[int, int]:
            return held[name], self._turns.last(name)

        flow = min(self._clients[min(clients, key=turn)], key=turn)
        generation = self._clients[flow.client][flow].popleft()
        self._removed_from(flow)
        self._turns.forget_all_but([*flows, *(flow for flows in self._clients.values() for flow in flows)])
        self._turns.record_turn(flow)
        return generation

    def clear(self) -> None:
        self._clients.clear()
        self._length = 0

    def _removed_from(self, flow: Flow) -> None:
        self._length -= 1
        flows = self._clients[flow.client]
        if not flows[flow]:
            del flows[flow]
        if not flows:
            del self._clients[flow.client]
