"""Long tests of a real Ray cluster: failures of every process, and changes of size under load."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import pytest

from dia_server.engine import preview
from dia_server.engine.cluster.engine import ClusterEngine
from dia_server.engine.engine import Engine
from dia_server.engine.types import Samples, Utterance
from tests.engine.cluster.connection import TEXT, connected
from tests.engine.cluster.ray_cluster import (
    PREVIEW,
    SLOTS,
    deploy,
    deployment,
    ray_cluster,
    replicas,
    restarted_head,
)
from tests.live.jobs import status, submit
from tests.live.peers import Peers, frozen
from tests.live.server import Server
from tests.postgres import Postgres
from tests.waiting import until, wait_until

pytest.importorskip("ray", reason="Ray is not installed; it is the extra cluster")
# Ray's modules warn of their own code
pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]

JOBS, FAULTS = 40, 20


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = str(tmp_path_factory.mktemp("head"))
    with ray_cluster(RAY_gcs_storage="rocksdb", RAY_gcs_storage_path=folder) as address:
        assert deploy(address, "2").endswith(b"2 engines are ready.\n")
        yield address


@pytest.fixture
async def audio() -> Samples:
    """The audio of TEXT, made without a cluster."""
    engine = Engine("preview", preview.load(SLOTS), max_waiting=64)
    engine.start()
    await until(lambda: engine.ready)
    samples = await heard(engine)
    await asyncio.to_thread(engine.stop)
    return samples


def has(engine: ClusterEngine, count: int) -> bool:
    return engine.worker_count == count


async def heard(engine: ClusterEngine | Engine) -> Samples:
    async with engine.submit(Utterance(TEXT, "aria", 1)) as generation:
        return np.concatenate([chunk.samples async for chunk in generation])


async def test_the_slots_of_a_killed_server_are_freed(address: str, tmp_path: Path) -> None:
    async with connected(address) as engine:
        with Server(tmp_path, cluster=address, patience_s=120, rate_limit_generate=0) as server:
            with ThreadPoolExecutor(6) as clients:
                asking = [clients.submit(keep_asking, server, n) for n in range(6)]
                await until(lambda: busy(engine) >= 3)
                server.kill()
            assert all(isinstance(one.exception(), httpx.TransportError) for one in asking)
        await until(lambda: busy(engine) == 0)


async def test_changes_of_size_fail_no_request(address: str, audio: Samples) -> None:
    spoken, wanted = 0, True

    async def client(engine: ClusterEngine) -> None:
        nonlocal spoken
        while wanted:
            assert np.array_equal(await heard(engine), audio)
            spoken += 1

    async with connected(address) as engine:
        clients = [asyncio.create_task(client(engine)) for _ in range(4)]
        for size in (1, 2, 4, 1):
            old = replicas()
            await asyncio.to_thread(deploy, address, str(size))
            await until(partial(has, engine, size), timeout_s=180)
            assert size == 1 or {*replicas()} - {*old}
        wanted = False
        await asyncio.gather(*clients)
    assert spoken > 20


async def test_engines_come_and_go_with_the_demand(address: str) -> None:
    process = deployment(address, "1-3", PREVIEW, prepare="deploy.DOWNSCALE_DELAY_S = 5")
    assert (await asyncio.to_thread(process.communicate))[0].endswith(b"1 engine is ready.\n")
    async with connected(address) as engine:
        generations = [engine.submit(Utterance(TEXT, "aria", n), background=True) for n in range(100)]
        await until(lambda: engine.worker_count == 3, timeout_s=180)
        for generation in generations:
            generation.cancel()
        await until(lambda: engine.worker_count == 1, timeout_s=300)


def test_each_job_has_one_result_after_faults_everywhere(
    address: str, tmp_path: Path, postgres: Postgres
) -> None:
    deploy(address, "2")
    seed = random.randrange(2**32)
    print(f"the faults of seed {seed}")  # shown where this fails
    chance = random.Random(seed)
    texts = [f"Job number {n}. " + f"This is sentence {n}. " * 150 for n in range(JOBS)]
    with Peers(tmp_path, postgres.create(), cluster=address) as peers:
        jobs = [submit(peers.servers[n % 2], text) for n, text in enumerate(texts)]
        stopped: list[int] = []
        for _ in range(FAULTS):
            time.sleep(chance.uniform(0, 4))
            chance.choice([kill_engine, stop_engine, kill_server, freeze_server])(peers, chance, stopped)
        for engine in {*stopped} & {*replicas()}:
            os.kill(engine, signal.SIGKILL)
        peers.wait_until_ready()
        wait_until(lambda: completed(peers, jobs) == JOBS, timeout_s=600)

        with_one = {text: generated(peers.servers[0], text) for text in texts[:3]}
        results = [(peers.outputs / f"{job_id}.wav").read_bytes() for job_id in jobs]
    assert [len(result) for result in results[:3]] == [len(audio) for audio in with_one.values()]
    assert results[:3] == [*with_one.values()]
    assert len({*results}) == JOBS
    assert all(len(result) > 44_100 for result in results)


async def test_a_cluster_heals_after_its_head_is_restarted(address: str, audio: Samples) -> None:
    async with connected(address) as engine:
        with restarted_head(address):
            end = time.monotonic() + 30
            while time.monotonic() < end:
                assert np.array_equal(await heard(engine), audio)
            os.kill(replicas()[0], signal.SIGKILL)
            await until(lambda: len(replicas()) == 2 and engine.worker_count == 2, timeout_s=120)
            assert np.array_equal(await heard(engine), audio)


def kill_engine(_: Peers, chance: random.Random, __: list[int]) -> None:
    if engines := replicas():
        os.kill(chance.choice(engines), signal.SIGKILL)


def stop_engine(_: Peers, chance: random.Random, stopped: list[int]) -> None:
    if engines := [one for one in replicas() if one not in stopped]:
        stopped.append(chance.choice(engines))
        os.kill(stopped[-1], signal.SIGSTOP)


def kill_server(peers: Peers, chance: random.Random, _: list[int]) -> None:
    server = chance.choice(peers.servers)
    server.kill()
    server.launch()


def freeze_server(peers: Peers, chance: random.Random, _: list[int]) -> None:
    with frozen(chance.choice(peers.servers)):
        time.sleep(chance.uniform(0, 6))  # its lease lasts 4 s


def completed(peers: Peers, jobs: list[str]) -> int:
    rows = peers.query("SELECT status FROM jobs WHERE job_id = ANY(%s)", jobs)
    assert not {"failed", "cancelled"} & {status for (status,) in rows}
    return sum(status == "completed" for (status,) in rows)


def generated(server: Server, text: str) -> bytes:
    job_id = submit(server, text)
    wait_until(lambda: status(server, job_id) == "completed", timeout_s=120)
    return server.get(f"/jobs/{job_id}/result").content


def keep_asking(server: Server, client: int) -> None:
    """Ask for speech, each time for another text, until the server is gone; raises httpx.TransportError."""
    for number in count():
        server.post("/generate", json={"text": f"Number {number} of {client}. {TEXT}"})


def busy(engine: ClusterEngine) -> int:
    return sum(state.busy for state in engine.cluster.replicas)
