"""The Dia engine in a real server, with a small random model whose noise is deterministic."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.engine.dia.tiny import save_dac, save_dia, tiny_dia
from tests.live.address import PATIENCE_S
from tests.live.clients import active, ask, wait_for
from tests.live.server import Server
from tests.waiting import wait_until

SLOTS = 4
TOKENS = 100


@pytest.fixture(scope="module")
def empty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without weights."""
    folder = tmp_path_factory.mktemp("dia")
    server = Server(
        folder,
        engine="dia",
        model=folder / "model",
        codec=folder / "codec",
        device="cpu",
        dtype="float32",
        max_batch=SLOTS,
        voice_anchors="off",
        rate_limit_generate=0,
    )
    server.start(wait_until_loaded=False)
    wait_until(lambda: health_of(server)["status"] != "loading")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def refused(empty_server: Server) -> tuple[dict[str, Any], httpx.Response]:
    """The health of the server without weights, and its answer to a request for speech."""
    return health_of(empty_server), empty_server.post("/generate", json={"text": "Hi"})


@pytest.fixture(scope="module")
def server(empty_server: Server, refused: object) -> Server:
    save_dia(empty_server.data_dir / "model", tiny_dia(ends=False))
    save_dac(empty_server.data_dir / "codec")
    assert empty_server.post("/model/load").is_success
    wait_until(lambda: health_of(empty_server)["model_loaded"])
    return empty_server


def health_of(server: Server) -> dict[str, Any]:
    health: dict[str, Any] = server.get("/health").json()
    return health


def say(server: Server, text: str, seed: int = 1) -> bytes:
    body = {"text": text, "seed": seed, "max_tokens": TOKENS}
    answer = server.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-engine"] == "dia"
    return answer.content


def measured(server: Server) -> dict[tuple[str, str], float]:
    """Return the samples of /metrics by name and label `kind` ("" without)."""
    families = text_string_to_metric_families(server.get("/metrics").text)
    return {
        (sample.name, sample.labels.get("kind", "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_dia_without_weights_is_reported_and_never_replaced(
    refused: tuple[dict[str, Any], httpx.Response], empty_server: Server
) -> None:
    health, answer = refused

    assert (health["status"], health["engine"], health["model_loaded"]) == ("unhealthy", "dia", False)
    assert (answer.status_code, answer.json()["error_code"]) == (503, "MODEL_NOT_LOADED")
    assert str(empty_server.data_dir / "model") in answer.json()["detail"]
    assert answer.headers["x-engine"] == "dia"


def test_the_length_of_audio_follows_from_max_tokens(server: Server) -> None:
    samples = (len(say(server, "Hello, world!")) - 44) // 2

    assert samples == (TOKENS - 16) * 512  # the delay pattern takes 16 columns


def test_health_reports_the_engine(server: Server) -> None:
    health = health_of(server)

    assert (health["engine"], health["status"], health["model_loaded"]) == ("dia", "healthy", True)


def test_a_request_makes_the_same_audio_alone_and_in_a_batch(server: Server) -> None:
    alone = say(server, "Among others.", seed=7)

    with ThreadPoolExecutor(16) as threads:
        others = [threads.submit(say, server, f"Another request, number {n}.", n) for n in range(6)]
        among = threads.submit(say, server, "Among others.", 7).result()
        assert len({other.result() for other in others}) == 6

    assert among == alone


def test_the_batch_is_full_while_work_waits(server: Server) -> None:
    seen = []
    holding = [
        ask(server, "/generate", {"text": f"I hold slot {n}.", "max_tokens": 3000}) for n in range(SLOTS)
    ]
    wait_until(lambda: measured(server)["dia_slots_busy", ""] == SLOTS)
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(say, server, f"Number {n}.", n) for n in range(10)]
        # all have arrived before any runs, so the queue is not empty until the last one seen
        wait_until(lambda: measured(server)["dia_queue_length", "request"] == len(asked))
        for one in holding:
            one.close()
        deadline = time.monotonic() + PATIENCE_S
        while not all(one.done() for one in asked):
            assert time.monotonic() < deadline
            page = measured(server)
            if page["dia_queue_length", "request"] > 0:
                seen.append((page["dia_engine_steps_total", ""], page["dia_engine_slot_steps_total", ""]))

    (steps_before, before), (steps_after, after) = seen[0], seen[-1]
    assert steps_after - steps_before > 20
    assert (after - before) / (steps_after - steps_before) > 0.9 * SLOTS


def test_a_client_that_disconnects_does_not_change_the_audio_of_others(server: Server) -> None:
    texts = [f"Number {n} stays." for n in range(6)]
    undisturbed = [say(server, text) for text in texts]

    with ThreadPoolExecutor(16) as threads:
        leaving = ask(server, "/generate", {"text": "I leave.", "max_tokens": 3000})
        wait_for(server, busy=True)
        staying = [threads.submit(say, server, text) for text in texts]
        wait_until(lambda: measured(server)["dia_queue_length", "request"] > 0)
        leaving.close()  # from the middle of a full batch
        assert [future.result() for future in staying] == undisturbed
    assert active(server) == 0
