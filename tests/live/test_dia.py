"""The Dia engine in a real server, with a small random model whose noise is deterministic."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("dia")
    model = save_dia(folder / "model", tiny_dia(ends=False))
    codec = save_dac(folder / "codec")
    with Server(
        folder,
        engine="dia",
        model=model,
        codec=codec,
        device="cpu",
        dtype="float32",
        max_batch=SLOTS,
        voice_anchors="off",
        rate_limit_generate=0,
    ) as server:
        yield server


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


def test_the_length_of_audio_follows_from_max_tokens(server: Server) -> None:
    samples = (len(say(server, "Hello, world!")) - 44) // 2

    assert samples == (TOKENS - 16) * 512  # the delay pattern takes 16 columns


def test_health_reports_the_engine(server: Server) -> None:
    health = server.get("/health").json()

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
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(say, server, f"Number {n}.", n) for n in range(10)]
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
