"""Deploys the engines of a cluster, or replaces them one by one by those of this version."""

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from dia_server.engine.cluster.ray_replicas import APP, DEPLOYMENT, connect
from dia_server.engine.cluster.replica import EngineReplica
from dia_server.engine.types import EngineName, LoadModel
from dia_server.errors import ModelNotLoaded

HEALTH_PERIOD_S = 2
HEALTH_TIMEOUT_S = 10
DRAIN_S = 120
"""Maximum seconds that a replica gets to finish its utterances before it is replaced."""


def deploy(
    address: str, name: EngineName, load_model: LoadModel, *, replicas: int | None, slots: int, gpus: int
) -> int:
    """Run `replicas` engines with up to `slots` slots and `gpus` GPUs each, and return their number.

    `replicas` is None for one per GPU of the cluster. Returns once all are ready. Replaces the engines that
    run already; their utterances are finished first. Raises ModelNotLoaded.
    """
    connect(address)
    if replicas is None:
        replicas = int(ray.cluster_resources().get("GPU", 0)) if gpus else 1
    if not replicas:
        raise ModelNotLoaded(f"The cluster at {address} has no GPU; name a number of replicas, or add hosts")
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(
        EngineReplica,
        name=DEPLOYMENT,
        num_replicas=replicas,
        max_ongoing_requests=slots,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=DRAIN_S,
        ray_actor_options={"num_cpus": 0, "num_gpus": gpus},
        request_router_config=RequestRouterConfig(
            request_router_class=f"{__package__}.router.FreestFirst",
            initial_backoff_s=0.01,
            max_backoff_s=0.1,
        ),
    )
    serve.run(deployment.bind(name, load_model, slots), name=APP, route_prefix=None)
    return replicas
