"""Chooses and builds the engines for the composition root (composition.py)."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from dia_server.engine import preview
from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.cluster.engine import ClusterEngine
from dia_server.engine.cluster.types import ReplicaCount
from dia_server.engine.devices import Device
from dia_server.engine.dia import load_dia
from dia_server.engine.engine import Engine
from dia_server.engine.pool import EnginePool
from dia_server.engine.types import EngineName, LoadModel
from dia_server.services.config import Config
from dia_server.settings import Settings

log = structlog.get_logger()

PREVIEW_SLOTS = 16
"""Maximum slots of the preview engine: its two espeak-ng processes gain nothing from more."""


def choose_engine(conf: Settings, gpus: Sequence[Device], config: Callable[[], Config]) -> AnyEngine:
    """Return the engine that the settings choose; `config` is called when Dia's engines are built."""
    if conf.cluster:
        from dia_server.engine.cluster.ray_replicas import RayReplicas  # Ray is an optional dependency

        return ClusterEngine(
            _cluster_engine(conf),
            RayReplicas(conf.cluster),
            max_waiting=conf.max_waiting,
            columns=conf.max_columns,
        )
    name = conf.engine
    if name == "auto":
        name = "dia" if gpus else "preview"
        if name == "preview":
            log.warning(
                "no GPU found: the preview engine (espeak-ng) speaks, not Dia; DIA_ENGINE=dia insists"
            )
    if name == "preview":
        return Engine("preview", preview.load(_preview_slots(conf)), max_waiting=conf.max_waiting)
    return EnginePool("dia", lambda: _dia_engines(conf, gpus, config()))


def deploy(conf: Settings, replicas: ReplicaCount | None) -> int:
    """Run engines on the cluster that `conf` names, or replace those that run; return their number.

    `replicas` is None for one engine per GPU of the cluster. Raises ModelNotLoaded, or ImportError without
    Ray.
    """
    from dia_server.engine.cluster import deploy as cluster  # Ray is an optional dependency

    run = partial(cluster.deploy, conf.cluster, replicas=replicas, columns=conf.max_columns)
    if _cluster_engine(conf) == "preview":
        slots = _preview_slots(conf)
        return run(name="preview", load_model=preview.load(slots), slots=slots, gpus=0)
    load = _dia_loader(conf, conf.device, compile=conf.torch_compile)
    gpus = int(conf.device != "cpu")
    return run(name="dia", load_model=load, slots=conf.max_batch, gpus=gpus)


def _cluster_engine(conf: Settings) -> EngineName:
    return "dia" if conf.engine == "auto" else conf.engine


def identity(model: str) -> str:
    """Return the name of a folder with a checkpoint, or a hub id and the revision that is on this machine."""
    if os.path.isdir(model):
        return Path(model).resolve().name
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json")
    return f"{model}@{Path(config).parent.name}" if isinstance(config, str) else model


def _dia_engines(conf: Settings, gpus: Sequence[Device], config: Config) -> list[Engine]:
    """Return one engine per device, but at most `worker_count` (0: all), or one if `gpu_mode` is "single"."""
    devices = [gpu.torch_name for gpu in gpus] if conf.device == "auto" and gpus else [conf.device]
    devices = devices[: 1 if config.gpu_mode == "single" else config.worker_count or len(devices)]
    loaders = [_dia_loader(conf, device, compile=config.torch_compile_enabled) for device in devices]
    return [
        Engine(
            "dia",
            loader,
            max_waiting=-(-conf.max_waiting // len(loaders)),
            idle_unload_s=conf.idle_unload or None,
            own_process=_needs_own_process(device, len(devices)),
        )
        for device, loader in zip(devices, loaders, strict=True)
    ]


def _dia_loader(conf: Settings, device: str, *, compile: bool) -> LoadModel:
    return partial(
        load_dia,
        model=conf.model,
        codec=conf.codec,
        device=device,
        dtype=conf.dtype,
        max_batch=conf.max_batch,
        max_columns=conf.max_columns,
        compile=compile,
        codec_dtype=conf.codec_dtype,
    )


def _preview_slots(conf: Settings) -> int:
    return min(conf.max_batch, PREVIEW_SLOTS)


def _needs_own_process(device: str, count: int) -> bool:
    """Return whether an engine runs in its own process: on CUDA, or if there are several engines.

    After a CUDA fault all further CUDA calls of the process fail, so a new process is needed. Engines in one
    process would also contend for Python's interpreter lock, with each other and with the web server.
    """
    return count > 1 or device.startswith("cuda")
