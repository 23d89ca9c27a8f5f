"""Which replica an utterance goes to; Ray Serve loads this in every process that calls the deployment."""

import hashlib
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class FreestFirst(RequestRouter):  # type: ignore[misc]
    """Prefers the replica with the fewest utterances.

    Among equals, a voice stays with one by rendezvous hashing, because it may have cached the voice's prompt.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        voice = "" if pending_request is None else pending_request.metadata.session_id

        def order(replica: RunningReplica) -> tuple[int, bytes]:
            running = self.replica_queue_len_cache.get(replica.replica_id) or 0
            name = f"{replica.replica_id.unique_id} {voice}".encode()
            return running, hashlib.blake2b(name, digest_size=8).digest()

        return [[replica] for replica in sorted(candidate_replicas, key=order)]

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        """Do nothing: the base class counts the utterances of each replica."""
