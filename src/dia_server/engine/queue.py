"""The queue for slots: clients share them, and within a client its requests do.

The next slot goes to the client that holds the fewest, then to that client's request that holds the fewest;
equals take turns. So a new client waits for one slot, however many utterances wait before its own.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator

from dia_server.engine.generation import Generation
from dia_server.engine.turns import Turns
from dia_server.engine.types import Flow


class FairQueue:
    """Not thread-safe, but for its length: the engine guards it."""

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
        """Add `generation` behind those of its request."""
        flow = generation.utterance.flow
        self._clients.setdefault(flow.client, {}).setdefault(flow, deque()).append(generation)
        self._length += 1

    def discard(self, generation: Generation) -> None:
        """Remove `generation` if it still waits."""
        flow = generation.utterance.flow
        waiting = self._clients.get(flow.client, {}).get(flow)
        if waiting and generation in waiting:
            waiting.remove(generation)
            self._removed_from(flow)

    def pop(self, running: Collection[Generation], *, newcomers_only: bool = False) -> Generation | None:
        """Take the next utterance, given those that hold slots now.

        With `newcomers_only`, only clients that hold no slot count; returns None where there is none.
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
