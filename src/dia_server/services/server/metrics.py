"""Prometheus metrics.

Labels never contain texts, clients, job ids or file names: their cardinality is bounded.

Hand-written because Litestar's Prometheus plugin does not count requests without a route (404, 405) and has
no metric for the time to first audio.
"""

import asyncio
import collections
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.cluster.types import ClusterState
from dia_server.engine.generation import Generation
from dia_server.errors import StorageUnavailable
from dia_server.services.jobs.store import JobStatus, JobStore
from dia_server.services.server.resources import ResourceMonitor, Resources
from dia_server.units import GIB, SAMPLE_RATE

log = structlog.get_logger()

MEDIA_TYPE = "text/plain; version=0.0.4"
"""Content-Type of the metrics page (UTF-8)."""

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 40, 80, 160)
"""Upper bounds of the histograms' buckets, in seconds. They suit both times to first audio (about 0.1 s) and
long texts (minutes)."""

SocketOutcome = Literal["completed", "failed", "cancelled", "refused"]


class Metrics:
    """Observes requests, sockets and the engine's utterances; `render` returns the metrics page."""

    def __init__(self, version: str, engine: AnyEngine, store: JobStore, monitor: ResourceMonitor) -> None:
        # `_created` series would double the counters; the library can only disable them globally
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        self._store = store
        self._monitor = monitor
        self._jobs = JobCollector()
        self._gpus = GpuCollector()
        registry.register(EngineCollector(version, engine))
        registry.register(self._jobs)
        registry.register(self._gpus)
        ProcessCollector(registry=registry)
        self._requests = HttpMetrics(registry)
        self._sockets = SocketMetrics(registry)
        self._utterances = UtteranceMetrics(registry)
        engine.watch(self._utterances.observe)

    def observe(
        self, *, method: str, route: str, status: str, seconds: float, first_audio_s: float | None
    ) -> None:
        """Count an HTTP request; `route` is a template (`/jobs/{job_id}`), never a path with an id in it."""
        self._requests.observe(method, route, status, seconds, first_audio_s)

    def connected(self, route: str) -> AbstractContextManager[None]:
        """Return a context manager that counts a WebSocket as open."""
        return self._sockets.open.labels(route).track_inprogress()

    def observe_generation(self, route: str, outcome: SocketOutcome) -> None:
        """Count the outcome of a generation over a WebSocket."""
        self._sockets.generations.labels(route, outcome).inc()

    async def render(self) -> bytes:
        """Return the metrics page, without the numbers of jobs if the database is unavailable."""
        try:
            self._jobs.unfinished = await self._store.unfinished()
        except StorageUnavailable as error:  # in an outage, the metrics without database matter most
            log.warning("jobs not counted", error=str(error))
            self._jobs.unfinished = {}
        self._gpus.resources = await asyncio.to_thread(self._monitor.measure)
        return generate_latest(self._registry)


class HttpMetrics:
    """Metrics of HTTP requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "dia_http_requests",
            "Requests answered, by route template; status none: the client disconnected first.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "dia_http_request_seconds",
            "Seconds from a request to the end of its response; select 2xx, because refusals are quick.",
            ["route", "status_class"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._first_audio = Histogram(
            "dia_http_first_audio_seconds",
            "Seconds from a request to its first audio bytes.",
            ["route"],
            buckets=BUCKETS_S,
            registry=registry,
        )

    def observe(
        self, method: str, route: str, status: str, seconds: float, first_audio_s: float | None
    ) -> None:
        """Count a request; observe its duration and, unless that is None, its time to first audio."""
        self._requests.labels(method, route, status).inc()
        status_class = f"{status[0]}xx" if status.isdecimal() else status
        self._seconds.labels(route, status_class).observe(seconds)
        if first_audio_s is not None:
            self._first_audio.labels(route).observe(first_audio_s)


class SocketMetrics:
    """Metrics of WebSockets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = Gauge("dia_websockets_open", "Open WebSockets.", ["route"], registry=registry)
        self.generations = Counter(
            "dia_websocket_generations",
            "Finished generations over WebSockets; refused: the message was rejected.",
            ["route", "outcome"],
            registry=registry,
        )


class UtteranceMetrics:
    """Metrics of the engine's utterances."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._utterances = Counter(
            "dia_utterances",
            "Finished utterances; a long text has several.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "dia_utterance_seconds",
            "Seconds from an utterance's submission to its last samples, including the queue.",
            ["kind"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._first_audio = Histogram(
            "dia_utterance_first_audio_seconds",
            "Seconds from an utterance's submission to its first samples, including the queue.",
            ["kind"],
            buckets=BUCKETS_S,
            registry=registry,
        )

    def observe(self, generation: Generation) -> None:
        """Count an ended utterance; observe its time to first audio and, if complete, its total time."""
        kind = _kind(background=generation.background)
        self._utterances.labels(kind, generation.outcome).inc()
        if generation.first_audio_s is not None:
            self._first_audio.labels(kind).observe(generation.first_audio_s)
        if generation.outcome == "made":
            self._seconds.labels(kind).observe(generation.total_s)


class EngineCollector(Collector):
    """Reads the engine's counters when the page is rendered."""

    def __init__(self, version: str, engine: AnyEngine) -> None:
        self._version = version
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine, work = self._engine, self._engine.work
        build = GaugeMetricFamily("dia_build_info", "Always 1.", labels=["version", "engine"])
        build.add_metric([self._version, engine.name], 1)
        yield build
        yield _gauge("dia_engine_ready", "1 if the engine accepts utterances.", engine.ready)
        yield _gauge("dia_model_loaded", "Share of the models loaded, 0 to 1.", engine.loaded)
        yield _gauge("dia_slots", "Utterances that can be generated at the same time.", engine.slots)
        yield _gauge("dia_slots_busy", "Utterances being generated.", engine.busy)
        queue = GaugeMetricFamily("dia_queue_length", "Utterances waiting for a slot.", labels=["kind"])
        for background in (False, True):
            queue.add_metric([_kind(background=background)], engine.waiting(background=background))
        yield queue
        yield _counter("dia_engine_steps", "Batched decode steps.", work.steps)
        yield _counter("dia_engine_slot_steps", "Busy slots, summed over the steps.", work.slot_steps)
        yield _counter("dia_engine_tokens", "Decode steps, summed over the utterances.", work.tokens)
        yield _counter("dia_engine_audio_seconds", "Seconds of audio generated.", work.samples / SAMPLE_RATE)
        if engine.cluster is not None:
            yield from _cluster_metrics(engine.cluster)


class JobCollector(Collector):
    """Reports the unfinished jobs as last counted; no series if the database was unavailable."""

    def __init__(self) -> None:
        self.unfinished: Mapping[JobStatus, int] = {}

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("dia_jobs", "Unfinished jobs in the database.", labels=["status"])
        for status, number in self.unfinished.items():
            family.add_metric([status], number)
        yield family


class GpuCollector(Collector):
    """Reports the GPUs as last measured; a value that the driver does not report has no series."""

    def __init__(self) -> None:
        self.resources: Resources | None = None

    def collect(self) -> Iterator[Metric]:
        memory, busy = ([], []) if self.resources is None else _gpu_values(self.resources)
        yield _per_gpu("dia_gpu_memory_used_bytes", "GPU memory in use by all processes.", memory)
        yield _per_gpu(
            "dia_gpu_busy_ratio",
            "Share of the last sample period in which the GPU was computing, 0 to 1.",
            busy,
        )


def _cluster_metrics(cluster: ClusterState) -> Iterator[Metric]:
    replicas = GaugeMetricFamily("dia_replicas", "Engines of the cluster.", labels=["host"])
    for host, number in collections.Counter(state.host for state in cluster.replicas).items():
        replicas.add_metric([host], number)
    yield replicas
    yield _counter(
        "dia_failovers", "Utterances of this server whose engine of the cluster was lost.", cluster.failovers
    )


def _gpu_values(resources: Resources) -> tuple[Sequence[float | None], Sequence[float | None]]:
    memory = [None if gib is None else gib * GIB for gib in resources.gpu_memory_gib]
    return memory, [None if percent is None else percent / 100 for percent in resources.gpu_percent]


def _per_gpu(name: str, text: str, values: Sequence[float | None]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["gpu"])
    for i, value in enumerate(values):
        if value is not None:
            family.add_metric([str(i)], value)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _kind(*, background: bool) -> str:
    return "job" if background else "request"
