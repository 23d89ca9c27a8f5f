"""The engine of a server that uses a Ray cluster, without the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dia_server.engine.cluster.engine import ClusterEngine
from dia_server.engine.types import EngineName
from tests.waiting import until

TEXT = "[S1] " + " ".join(f"This is sentence number {n} of a long text." for n in range(80))


@asynccontextmanager
async def connected(address: str, name: EngineName = "preview") -> AsyncIterator[ClusterEngine]:
    """Connect to the cluster at `address`; its engines are of the kind `name`."""
    from dia_server.engine.cluster.ray_replicas import RayReplicas  # Ray is an extra

    engine = ClusterEngine(name, RayReplicas(address), max_waiting=4096)
    engine.start()
    try:
        await until(lambda: engine.ready, timeout_s=180)
        yield engine
    finally:
        await asyncio.to_thread(engine.stop)
