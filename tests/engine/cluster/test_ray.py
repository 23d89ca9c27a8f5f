"""A real Ray cluster on loopback: a head, a node, and two engines with the preview."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dia_server.engine import preview
from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.cluster.engine import ClusterEngine
from dia_server.engine.engine import Engine
from dia_server.engine.types import Recording, Samples, Utterance, VoicePrompt
from tests.live.server import Server
from tests.waiting import until, wait_until

pytest.importorskip("ray", reason="Ray is not installed; it is the extra cluster")
# Ray's modules warn of their own code
pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("default")]

SLOTS = 8
VOICES = ("aria", "kai", "luna", "nova")
"""The preview speaks a sentence of one voice twice in no time; so streams of four voices take their time."""
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
TEXT = "[S1] " + " ".join(f"This is sentence number {n} of a long text." for n in range(80))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of a cluster whose engines `dia-server engine` has started."""
    from ray.cluster_utils import Cluster

    os.environ |= ENVIRONMENT
    memory = {"object_store_memory": 100_000_000}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "node_ip_address": "127.0.0.2", "include_dashboard": False, **memory},
    )
    cluster.add_node(num_cpus=2, node_ip_address="127.0.0.3", **memory)
    try:
        deploy(cluster.address)
        yield cluster.address
    finally:
        cluster.shutdown()


def deploy(address: str, replicas: str = "2", ready: bytes = b"2 engines are ready.\n") -> None:
    command = ["-m", "dia_server", "engine", "--cluster", address, "--replicas", replicas]
    settings = {"DIA_ENGINE": "preview", "DIA_MAX_BATCH": str(SLOTS)}
    done = subprocess.run(
        [sys.executable, *command], env=os.environ | settings, check=True, stdout=subprocess.PIPE
    )
    assert done.stdout.endswith(ready)


@pytest.fixture
async def engine(address: str) -> AsyncIterator[ClusterEngine]:
    from dia_server.engine.cluster.ray_replicas import RayReplicas

    engine = ClusterEngine("preview", RayReplicas(address), max_waiting=64)
    engine.start()
    await until(lambda: engine.worker_count == 2)
    yield engine
    await asyncio.to_thread(engine.stop)


@pytest.fixture
async def local() -> AsyncIterator[Engine]:
    engine = Engine("preview", preview.load(SLOTS), max_waiting=64)
    engine.start()
    await until(lambda: engine.ready)
    yield engine
    await asyncio.to_thread(engine.stop)


def replicas() -> list[int]:
    """Return the process ids of the replicas."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::ServeReplica:dia:engine" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


async def heard(engine: AnyEngine, utterance: Utterance) -> Samples:
    async with engine.submit(utterance) as generation:
        return np.concatenate([chunk.samples async for chunk in generation])


async def test_a_cluster_makes_the_same_audio(engine: ClusterEngine, local: Engine) -> None:
    prompts = [
        VoicePrompt((Recording(np.ones(44_100, np.float32), f"digest {n % 2}"),), "[S1] Yes.")
        for n in range(4)
    ]
    utterances = [Utterance(f"[S1] This is number {n}.", "aria", n) for n in range(8)]
    utterances += [Utterance("[S1] Hello.", "aria", n, prompt=prompt) for n, prompt in enumerate(prompts)]

    everywhere = await asyncio.gather(*(heard(engine, one) for one in utterances))
    here = await asyncio.gather(*(heard(local, one) for one in utterances))

    assert all(map(np.array_equal, everywhere, here))


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_stream_goes_on_elsewhere(
    engine: ClusterEngine, local: Engine, fault: signal.Signals
) -> None:
    calm = {voice: await heard(local, Utterance(TEXT, voice, 1)) for voice in VOICES}
    victim = replicas()[0]
    parts: dict[str, list[Samples]] = {voice: [] for voice in VOICES}

    async def listen(voice: str) -> None:
        async with engine.submit(Utterance(TEXT, voice, 1)) as generation:
            async for chunk in generation:
                parts[voice].append(chunk.samples)

    listening = [asyncio.create_task(listen(voice)) for voice in VOICES]
    await until(lambda: all(parts.values()))
    os.kill(victim, fault)
    await asyncio.gather(*listening)

    assert all(np.array_equal(np.concatenate(parts[voice]), calm[voice]) for voice in VOICES)
    assert engine.cluster.failovers
    if fault is signal.SIGSTOP:
        await until(lambda: victim not in replicas() or len(replicas()) > 2, timeout_s=120)
        if victim in replicas():
            os.kill(victim, signal.SIGKILL)
    await until(lambda: len(replicas()) == 2 and engine.worker_count == 2, timeout_s=120)


async def test_cancelling_frees_the_slot(engine: ClusterEngine) -> None:
    generation = engine.submit(Utterance(TEXT, "aria", 1))
    await anext(generation)
    await until(lambda: sum(state.busy for state in engine.cluster.replicas) == 1)
    generation.cancel()
    await until(lambda: sum(state.busy for state in engine.cluster.replicas) == 0)
    assert engine.active == 0


def test_a_server_speaks_by_the_cluster_through_an_update(address: str, tmp_path: Path) -> None:
    def speak(server: Server, **request: Any) -> bytes:
        answer = server.post("/generate", json={"text": "Hello there.", "seed": 1, **request})
        assert answer.status_code == 200, answer.text
        return answer.content

    with Server(tmp_path, cluster=address, patience_s=120, rate_limit_generate=0) as server:
        assert server.get("/health").json()["worker_count"] == 2
        before = speak(server)
        old = replicas()
        update = subprocess.Popen(
            [sys.executable, "-c", f"from tests.engine.cluster.test_ray import deploy; deploy({address!r})"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        count = 0
        while update.poll() is None:
            assert speak(server) == before
            count += 1
        assert update.returncode == 0
        assert count
        wait_until(lambda: not {*old} & {*replicas()}, timeout_s=120)
        assert speak(server, stream=True, response_format="pcm")
        assert server.stop() == 0


async def test_engines_are_added_for_what_waits_in_the_server(address: str, engine: ClusterEngine) -> None:
    await asyncio.to_thread(deploy, address, "1-3", b"1 engine is ready.\n")
    generations = [engine.submit(Utterance(TEXT, "aria", n), background=True) for n in range(100)]
    await until(lambda: engine.worker_count == 3, timeout_s=120)
    for generation in generations:
        generation.cancel()
