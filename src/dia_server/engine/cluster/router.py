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
        """Preferred replica of each utterance that was not sent yet: the base class counts those sent."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        voice = "" if pending_request is None else pending_request.metadata.session_id
        avoid = () if pending_request is None else pending_request.kwargs.get("avoid", ())
        future = None if pending_request is None else pending_request.future
        unsent = Counter(_destination(one, to) for one, to in self._unsent.items() if one is not future)

        def order(replica: RunningReplica) -> tuple[bool, int, bytes]:
            name = replica.replica_id.unique_id
            count = (self.replica_queue_len_cache.get(replica.replica_id) or 0) + unsent[replica.replica_id]
            return name in avoid, count, hashlib.blake2b(f"{name} {voice}".encode(), digest_size=8).digest()

        ranked = sorted(candidate_replicas, key=order)
        if future is not None and ranked:
            self._unsent[future] = ranked[0].replica_id
        return [[replica] for replica in ranked]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._unsent = {
            future: preferred
            for future, preferred in self._unsent.items()
            if not (future.done() and _destination(future, preferred) in (replica_id, None))
        }

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        """Do nothing: the base class counts the utterances of each replica."""


def _destination(future: asyncio.Future[RunningReplica], preferred: ReplicaID) -> ReplicaID | None:
    """Return where the utterance of `future` goes; None if it was cancelled."""
    if not future.done():
        return preferred
    return None if future.cancelled() else future.result().replica_id
