"""Deploys the engines of a cluster, or replaces them one by one by those of this version."""

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from dia_server.engine.cluster.demand import scale
from dia_server.engine.cluster.ray_replicas import APP, DEPLOYMENT, connect
from dia_server.engine.cluster.replica import EngineReplica
from dia_server.engine.cluster.types import ReplicaCount
from dia_server.engine.types import EngineName, LoadModel
from dia_server.errors import ModelNotLoaded

HEALTH_PERIOD_S = 2
HEALTH_TIMEOUT_S = 10
DRAIN_S = 120
"""Maximum seconds that a replica gets to finish its utterances before it is replaced."""
LOOK_BACK_S = 11
"""Seconds over which the demand is averaged: more than the 10 s between two measurements."""
UPSCALE_DELAY_S = 5
"""Seconds for which an engine must be missing before it is added."""
DOWNSCALE_DELAY_S = 300
"""Seconds for which an engine must be superfluous before it is taken away: another one takes long to load."""


def deploy(
    address: str,
    name: EngineName,
    load_model: LoadModel,
    *,
    replicas: ReplicaCount | None,
    slots: int,
    columns: int,
    gpus: int,
) -> int:
    """Run engines with up to `slots` slots of `columns` decoder columns and `gpus` GPUs each.

    Returns their number once they are ready.

    `replicas` is None for one per GPU of the cluster. Without GPUs each engine takes one CPU. The
    engines that run already are replaced, and finish their utterances first. Raises ModelNotLoaded.
    """
    connect(address)
    if replicas is None:
        count = int(ray.cluster_resources().get("GPU", 0)) if gpus else 1
        replicas = ReplicaCount(count, count)
    if not replicas.least:
        raise ModelNotLoaded(f"The cluster at {address} has no GPU; name a number of replicas, or add hosts")
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(
        EngineReplica,
        name=DEPLOYMENT,
        max_ongoing_requests=slots,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=DRAIN_S,
        ray_actor_options={"num_cpus": 0 if gpus else 1, "num_gpus": gpus},
        request_router_config=RequestRouterConfig(
            request_router_class=f"{__package__}.router.FreestFirst",
            initial_backoff_s=0.01,
            max_backoff_s=0.1,
        ),
        autoscaling_config=AutoscalingConfig(
            min_replicas=replicas.least,
            max_replicas=replicas.most,
            look_back_period_s=LOOK_BACK_S,
            upscale_delay_s=UPSCALE_DELAY_S,
            downscale_delay_s=DOWNSCALE_DELAY_S,
            policy=AutoscalingPolicy(policy_function=scale),
        ),
    )
    serve.run(deployment.bind(name, load_model, slots, columns), name=APP, route_prefix=None)
    return replicas.least
