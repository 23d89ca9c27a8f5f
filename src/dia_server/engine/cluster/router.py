"""Which replica an utterance goes to; Ray Serve loads this in every process that calls the deployment."""

import asyncio
import hashlib
from collections import Counter
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica


class FreestFirst(RequestRouter):  # type: ignore[misc]
    """Prefers the replica with the fewest utterances, unless the call's `avoid` names it.

    Among equals, a voice stays with one by rendezvous hashing, because it may have cached the voice's prompt.
    """

    def initialize_state(self, **_: Any) -> None:
        self._unsent: dict[asyncio.Future[RunningReplica], ReplicaID] = {}
        """Preferred replica of each utterance that was not sent yet."""
        self._sent: Counter[ReplicaID] = Counter()
        """Utterances that were sent to each replica and have not ended.

        The base class knows those of other servers too, but takes the number of whichever answer came last,
        and forgets it after a while.
        """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        voice = "" if pending_request is None else pending_request.metadata.session_id
        avoid = () if pending_request is None else pending_request.kwargs.get("avoid", ())
        future = None if pending_request is None else pending_request.future
        unsent = Counter(_destination(one, to) for one, to in self._unsent.items() if one is not future)

        def order(replica: RunningReplica) -> tuple[bool, int, bytes]:
            key, name = replica.replica_id, replica.replica_id.unique_id
            count = max(self.replica_queue_len_cache.get(key) or 0, self._sent[key]) + unsent[key]
            return name in avoid, count, hashlib.blake2b(f"{name} {voice}".encode(), digest_size=8).digest()

        ranked = sorted(candidate_replicas, key=order)
        if future is not None and ranked:
            self._unsent[future] = ranked[0].replica_id
        return [[replica] for replica in ranked]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._sent[replica_id] += 1
        self._unsent = {
            future: preferred
            for future, preferred in self._unsent.items()
            if not (future.done() and _destination(future, preferred) in (replica_id, None))
        }

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        self._sent -= Counter([replica_id])  # drops replicas without utterances

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        """Do nothing: `on_send_request` counts the utterances of each replica."""


def _destination(future: asyncio.Future[RunningReplica], preferred: ReplicaID) -> ReplicaID | None:
    """Return where the utterance of `future` goes; None if it was cancelled."""
    if not future.done():
        return preferred
    return None if future.cancelled() else future.result().replica_id
