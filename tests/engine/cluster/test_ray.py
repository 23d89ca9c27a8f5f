"""A real Ray cluster with two engines: the preview, then a tiny Dia."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dia_server.engine import preview
from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.cluster.engine import ClusterEngine
from dia_server.engine.dia import load_dia
from dia_server.engine.engine import Engine
from dia_server.engine.types import LoadModel, Recording, Samples, Utterance, VoicePrompt
from tests.engine.cluster.connection import TEXT, connected
from tests.engine.cluster.ray_cluster import PREVIEW, SLOTS, deploy, deployment, ray_cluster, replicas
from tests.engine.dia.tiny import save_dac, save_dia
from tests.live.jobs import status
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.waiting import until, wait_until

pytest.importorskip("ray", reason="Ray is not installed; it is the extra cluster")
# Ray's modules warn of their own code
pytestmark = pytest.mark.filterwarnings("ignore")

VOICES = ("aria", "kai", "luna", "nova")
"""The preview speaks a sentence of one voice twice in no time; so streams of four voices take their time."""
REQUEST = {
    "text": "[S1] One engine speaks. [S2] And another one answers. [S1] " + "They go on. " * 30,
    "seed": 4,
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of a cluster with two preview engines, which `dia-server engine` has started."""
    with ray_cluster() as address:
        assert deploy(address, "2").endswith(b"2 engines are ready.\n")
        yield address


@pytest.fixture
async def engine(address: str) -> AsyncIterator[ClusterEngine]:
    async with connected(address) as engine:
        await until(lambda: engine.worker_count == 2)
        yield engine


@pytest.fixture
async def local() -> AsyncIterator[Engine]:
    async for engine in loaded("preview", preview.load(SLOTS)):
        yield engine


async def loaded(name: Any, load_model: LoadModel) -> AsyncIterator[Engine]:
    engine = Engine(name, load_model, max_waiting=64)
    engine.start()
    await until(lambda: engine.ready)
    yield engine
    await asyncio.to_thread(engine.stop)


async def heard(engine: AnyEngine, utterances: Sequence[Utterance]) -> list[Samples]:
    """Return the audio of utterances that are generated at the same time."""

    async def hear(utterance: Utterance) -> Samples:
        async with engine.submit(utterance) as generation:
            return np.concatenate([chunk.samples async for chunk in generation])

    return await asyncio.gather(*map(hear, utterances))


def prompt(digest: str) -> VoicePrompt:
    return VoicePrompt((Recording(np.ones(44_100, np.float32), digest),), "[S1] Yes.")


async def test_a_cluster_makes_the_same_audio(engine: ClusterEngine, local: Engine) -> None:
    utterances = [Utterance(f"[S1] This is number {n}.", "aria", n) for n in range(8)]
    utterances += [Utterance("[S1] Hello.", "aria", n, prompt=prompt(f"digest {n % 2}")) for n in range(4)]

    assert all(map(np.array_equal, await heard(engine, utterances), await heard(local, utterances)))


async def test_streams_of_one_voice_are_spread(engine: ClusterEngine) -> None:
    generations = [engine.submit(Utterance(TEXT, "aria", n), background=n < 4) for n in range(8)]
    for generation in generations:
        await anext(generation)
    await until(lambda: sum(state.busy for state in engine.cluster.replicas) == 8)

    assert [state.busy for state in engine.cluster.replicas] == [4, 4]

    for generation in generations:
        generation.cancel()
    await until(lambda: not any(state.busy for state in engine.cluster.replicas))
    assert engine.active == 0


@pytest.mark.parametrize("fault", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.full)])
async def test_a_stream_goes_on_elsewhere(
    engine: ClusterEngine, local: Engine, fault: signal.Signals
) -> None:
    utterances = [Utterance(TEXT, voice, 1) for voice in VOICES]
    calm = await heard(local, utterances)
    victim = replicas()[0]
    parts: list[list[Samples]] = [[] for _ in utterances]

    async def listen(utterance: Utterance, heard: list[Samples]) -> None:
        async with engine.submit(utterance) as generation:
            async for chunk in generation:
                heard.append(chunk.samples)

    listening = [asyncio.create_task(listen(*each)) for each in zip(utterances, parts, strict=True)]
    await until(lambda: all(parts))
    os.kill(victim, fault)
    await asyncio.gather(*listening)

    assert all(map(np.array_equal, map(np.concatenate, parts), calm))
    assert engine.cluster.failovers
    if fault is signal.SIGSTOP and victim in replicas():
        os.kill(victim, signal.SIGKILL)
    await until(lambda: len(replicas()) == 2 and engine.worker_count == 2, timeout_s=120)


def test_a_server_answers_like_one_without_a_cluster(address: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"patience_s": 120, "rate_limit_generate": 0, "max_batch": SLOTS}
    (tmp_path / "local").mkdir()
    with (
        Server(tmp_path, cluster=address, **settings) as server,
        Server(tmp_path / "local", **settings) as one,
    ):
        assert server.get("/health").json()["worker_count"] == 2
        for ask in (plain, streamed, by_websocket, by_job):
            assert ask(server) == ask(one), ask.__name__
        assert server.stop() == 0


@pytest.mark.full
def test_an_update_fails_no_request(address: str, tmp_path: Path) -> None:
    with Server(tmp_path, cluster=address, patience_s=120, rate_limit_generate=0) as server:
        before, old, count = plain(server), replicas(), 0
        with deployment(address, "2", PREVIEW) as update:
            while update.poll() is None:
                assert plain(server) == before
                count += 1
        assert update.returncode == 0
        assert count
        wait_until(lambda: not {*old} & {*replicas()}, timeout_s=120)
        assert plain(server) == before


async def test_a_cluster_of_dia_makes_the_same_audio(address: str, tmp_path: Path) -> None:
    model, codec = str(save_dia(tmp_path / "model")), str(save_dac(tmp_path / "codec"))
    settings = {"DIA_ENGINE": "dia", "DIA_MODEL": model, "DIA_CODEC": codec, "DIA_DEVICE": "cpu"}
    settings |= {"DIA_DTYPE": "float32", "DIA_MAX_BATCH": "4", "DIA_TORCH_COMPILE": "false"}
    assert await asyncio.to_thread(deploy, address, "2", settings)
    utterances = [Utterance(f"[S1] This is number {n}.", "aria", n, max_tokens=60) for n in range(8)]
    utterances += [
        Utterance("[S1] Hello.", "aria", n, prompt=prompt(f"digest {n % 2}"), max_tokens=60) for n in range(4)
    ]

    def load(report: Any) -> Any:
        return load_dia(
            report,
            model=model,
            codec=codec,
            device="cpu",
            dtype="float32",
            max_batch=4,
            max_columns=3072,
            compile=False,
        )

    async with connected(address, "dia") as engine:
        await until(lambda: engine.worker_count == 2)
        everywhere = await heard(engine, utterances)
        assert {state.name for state in engine.cluster.replicas} == {"dia"}
    async for one in loaded("dia", load):
        assert all(map(np.array_equal, everywhere, await heard(one, utterances)))


def plain(server: Server) -> bytes:
    answer = server.post("/generate", json=REQUEST)
    assert answer.status_code == 200, answer.text
    return answer.content


def streamed(server: Server) -> bytes:
    answer = server.post("/generate", json=REQUEST | {"stream": True, "response_format": "pcm"})
    assert answer.status_code == 200, answer.text
    return answer.content


def by_websocket(server: Server) -> bytes:
    with WebSocketClient(server.port, "/ws/generate") as socket:
        socket.send({"type": "generate", "data": REQUEST | {"stream": True}})
        audio = b""
        while isinstance(message := socket.receive(), bytes) or message["type"] != "complete":
            assert isinstance(message, bytes) or message["type"] != "error"
            audio += message if isinstance(message, bytes) else b""
    return audio


def by_job(server: Server) -> bytes:
    job_id = server.post("/generate?async_mode=true", json=REQUEST).json()["job_id"]
    wait_until(lambda: status(server, job_id) == "completed")
    return server.get(f"/jobs/{job_id}/result").content
