"""Probes and metrics."""

import re
from collections.abc import AsyncIterator

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.dialects import sqlite

from dia_server import __version__
from dia_server.app import create_app
from dia_server.db.engine import Database
from dia_server.engine.cluster.engine import ClusterEngine
from dia_server.engine.engine import Engine
from dia_server.errors import StorageUnavailable
from dia_server.services.jobs.store import JobStore, unfinished_jobs
from dia_server.services.server.resources import ResourceMonitor, Resources
from dia_server.settings import Settings
from tests.engine.cluster.replicas import FakeReplicas, Fault
from tests.tones import Gate, ToneModel, failing_loader, loader
from tests.waiting import early_in_a_minute, until

Client = AsyncTestClient[Litestar]


class Page:
    def __init__(self, text: str) -> None:
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._samples.get((name, frozenset(labels.items())))

    def values(self, name: str, label: str) -> set[str]:
        return {dict(labels)[label] for sample, labels in self._samples if sample == name}


async def scrape(client: Client) -> Page:
    return Page((await client.get("/metrics")).text)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def engine(gate: Gate) -> Engine:
    return Engine("preview", loader(ToneModel(slots=2, before_step=gate)), max_waiting=8)


@pytest.fixture
async def client(settings: Settings, engine: Engine) -> AsyncIterator[Client]:
    async with AsyncTestClient(create_app(settings, engine), raise_server_exceptions=False) as client:
        await until(lambda: engine.ready)
        yield client


async def test_the_metrics_are_in_prometheus_format(client: Client) -> None:
    answer = await client.get("/metrics")
    page = Page(answer.text)

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert page("dia_build_info", version=__version__, engine="preview") == 1
    assert (page("dia_engine_ready"), page("dia_model_loaded"), page("dia_slots")) == (1, 1, 2)
    assert "_created" not in answer.text


async def test_an_utterance_is_counted_with_its_steps_and_its_audio(client: Client, gate: Gate) -> None:
    gate.open()
    words = "Ten to say."
    await client.post("/generate", json={"text": words})
    page = await scrape(client)

    steps = len(f"[S1] {words}")  # of 10 ms each
    assert page("dia_engine_steps_total") == page("dia_engine_slot_steps_total") == steps
    assert page("dia_engine_tokens_total") == steps
    assert page("dia_engine_audio_seconds_total") == pytest.approx(steps / 100)
    assert page("dia_utterances_total", kind="request", outcome="made") == 1
    assert page("dia_utterance_seconds_count", kind="request") == 1
    first = page("dia_utterance_first_audio_seconds_sum", kind="request")
    total = page("dia_utterance_seconds_sum", kind="request")
    assert first is not None
    assert total is not None
    assert 0 < first <= total


async def test_the_queue_and_the_batch_have_gauges(client: Client, engine: Engine, gate: Gate) -> None:
    jobs = [await client.post("/generate?async_mode=true", json={"text": "x" * 20}) for _ in range(5)]
    assert {job.status_code for job in jobs} == {200}
    await until(lambda: engine.busy > 0 and engine.active == 2)
    held = await scrape(client)
    gate.open()
    await until(lambda: engine.active == 0)

    # one slot is reserved for requests, and no more jobs start than there are slots
    assert (held("dia_slots_busy"), held("dia_queue_length", kind="job")) == (1, 1)
    assert held("dia_queue_length", kind="request") == 0


async def test_jobs_in_the_database_are_counted_until_they_are_finished(client: Client, gate: Gate) -> None:
    async def unfinished() -> tuple[float | None, float | None]:
        page = await scrape(client)
        return page("dia_jobs", status="processing"), page("dia_jobs", status="pending")

    assert await unfinished() == (0, 0)
    for _ in range(5):
        await client.post("/generate?async_mode=true", json={"text": "x" * 20})

    async def waiting() -> bool:
        return await unfinished() == (2, 3)  # as many jobs start as there are slots

    async def finished() -> bool:
        return await unfinished() == (0, 0)

    await until(waiting)
    gate.open()
    await until(finished)


@pytest.mark.sqlite
async def test_jobs_are_counted_in_the_index_alone(settings: Settings) -> None:
    database = Database(settings.sqlalchemy_url)
    await database.upgrade()
    async with database.reads() as session:
        query = unfinished_jobs().compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
        plan = (await session.execute(text(f"EXPLAIN QUERY PLAN {query}"))).all()
    await database.close()

    (step,) = plan
    assert "USING COVERING INDEX ix_jobs_status_number (status=?)" in step.detail


async def test_metrics_are_returned_without_a_database(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unfinished(_: JobStore) -> dict[str, int]:
        raise StorageUnavailable("disk on fire")

    monkeypatch.setattr(JobStore, "unfinished", unfinished)
    page = await scrape(client)

    assert page("dia_engine_ready") == 1
    assert page("dia_jobs", status="pending") is None


async def test_failures_are_counted(settings: Settings) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    engine = Engine("preview", loader(ToneModel(before_step=fail)), max_waiting=8)
    async with AsyncTestClient(create_app(settings, engine), raise_server_exceptions=False) as client:
        await until(lambda: engine.ready)
        assert (await client.post("/generate", json={"text": "Hi"})).status_code == 500
        page = await scrape(client)

    assert page("dia_utterances_total", kind="request", outcome="failed") == 1
    assert page("dia_utterance_seconds_count", kind="request") is None
    assert page("dia_http_requests_total", method="POST", route="/generate", status="500") == 1
    assert page("dia_http_first_audio_seconds_count", route="/generate") is None


async def test_durations_of_refusals_are_labelled_apart_from_successes(
    settings: Settings, engine: Engine, gate: Gate
) -> None:
    gate.open()
    limited = msgspec.structs.replace(settings, rate_limit_generate=1)
    async with AsyncTestClient(create_app(limited, engine)) as client:
        await until(lambda: engine.ready)
        early_in_a_minute()
        answers = [await client.post("/generate", json={"text": "Hi"}) for _ in range(4)]
        page = await scrape(client)

    assert [answer.status_code for answer in answers] == [200, 429, 429, 429]
    assert page("dia_http_request_seconds_count", route="/generate", status_class="2xx") == 1
    assert page("dia_http_request_seconds_count", route="/generate", status_class="4xx") == 3


async def test_series_use_route_templates_and_unknown_paths_add_none(client: Client, gate: Gate) -> None:
    gate.open()
    for path in ("/jobs/one", "/jobs/two", "/nonsense/1", "/nonsense/2", "/static/nothing.js"):
        assert (await client.get(path)).status_code == 404
    assert (await client.request("BREW", "/generate")).status_code == 405
    await client.post("/generate", json={"text": "Hi"})
    page = await scrape(client)

    assert page("dia_http_requests_total", method="GET", route="/jobs/{job_id}", status="404") == 2
    assert page("dia_http_requests_total", method="GET", route="none", status="404") == 2
    assert page("dia_http_requests_total", method="other", route="none", status="405") == 1
    routes = page.values("dia_http_requests_total", "route")
    assert routes == {"/jobs/{job_id}", "none", "/static/{file_path}", "/generate"}
    assert page("dia_http_first_audio_seconds_count", route="/generate") == 1
    assert page.values("dia_http_first_audio_seconds_count", "route") == {"/generate"}


async def test_gpu_memory_has_metrics_if_the_driver_reports_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Resources(
        cpu_percent=1.0, memory_percent=2.0, gpu_percent=[50.0, None], gpu_memory_gib=[1.5, None]
    )
    monkeypatch.setattr(ResourceMonitor, "measure", lambda _: measured)
    page = await scrape(client)

    assert page("dia_gpu_memory_used_bytes", gpu="0") == 1.5 * 2**30
    assert page("dia_gpu_busy_ratio", gpu="0") == 0.5
    assert page("dia_gpu_memory_used_bytes", gpu="1") is None


async def test_two_servers_in_one_process_count_separately(client: Client, settings: Settings) -> None:
    await client.get("/health")
    other = create_app(msgspec.structs.replace(settings, data_dir=settings.data_dir + "/other"))
    async with AsyncTestClient(other) as second:
        page = await scrape(second)

    assert page("dia_http_requests_total", method="GET", route="/health", status="200") is None


async def test_metrics_require_a_configured_key_but_probes_do_not(settings: Settings) -> None:
    app = create_app(msgspec.structs.replace(settings, api_keys=("key",)))
    async with AsyncTestClient(app) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"authorization": "Bearer key"})).status_code == 200
        assert (await client.get("/health/live")).json() == {"status": "alive"}
        assert (await client.get("/health/ready")).status_code in {200, 503}


async def test_readiness_follows_the_model(settings: Settings) -> None:
    gate = Gate()
    engine = Engine("dia", failing_loader(gate), max_waiting=1)
    async with AsyncTestClient(create_app(settings, engine)) as client:
        loading = await client.get("/health/ready")
        alive = await client.get("/health/live")
        gate.open()
        await until(lambda: engine.error is not None)
        failed = await client.get("/health/ready")

    assert (loading.status_code, loading.json()["error_code"]) == (503, "MODEL_NOT_LOADED")
    assert loading.headers["retry-after"] == "5"
    assert alive.status_code == 200
    assert failed.status_code == 503
    assert failed.json().keys() == {"detail", "error_code", "timestamp"}
    assert "disk on fire" in failed.json()["detail"]


async def test_a_working_model_is_ready(client: Client) -> None:
    answer = await client.get("/health/ready")

    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_probes_and_metrics_are_documented(client: Client) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]

    assert paths["/health/ready"]["get"]["responses"].keys() == {"200", "503"}
    assert paths["/health/live"]["get"]["responses"].keys() == {"200"}
    assert paths["/metrics"]["get"]["responses"].keys() == {"200", "401"}
    assert "text/plain" in paths["/metrics"]["get"]["responses"]["200"]["content"]


async def test_names_follow_prometheus_conventions(client: Client) -> None:
    names = re.findall(r"^# TYPE (dia_\S+) (\w+)$", (await client.get("/metrics")).text, re.MULTILINE)

    for name, kind in names:
        assert name.endswith("_total") == (kind == "counter"), name
        assert "_ms" not in name


async def test_a_cluster_shows_its_engines_in_the_metrics_the_health_and_the_statistics(
    settings: Settings,
) -> None:
    replicas = FakeReplicas(slots=2, faults=[Fault(dies_before=2)])
    engine = ClusterEngine("preview", replicas, max_waiting=8, poll_s=0.01)
    async with AsyncTestClient(create_app(settings, engine)) as client:
        await until(lambda: engine.ready)
        await client.post("/generate", json={"text": "Hello."})
        page = await scrape(client)
        health = (await client.get("/health")).json()
        stats = (await client.get("/stats")).json()

    assert (page("dia_replicas", host="127.0.0.1"), page("dia_failovers_total")) == (1, 1)
    assert health["cluster"] == {"replicas": 1, "hosts": 1, "slots": 2, "failovers": 1}
    assert stats["replicas"] == [{"host": "127.0.0.1", "slots": 2, "busy": 0}]


async def test_one_machine_shows_no_cluster(client: Client) -> None:
    assert "cluster" not in (await client.get("/health")).json()
    assert "replicas" not in (await client.get("/stats")).json()
    assert (await scrape(client))("dia_failovers_total") is None
