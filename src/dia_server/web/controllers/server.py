"""Routes of the server: health, configuration, statistics."""

import dataclasses

import msgspec
from litestar import Controller, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from dia_server import __version__
from dia_server.services.config import ConfigService
from dia_server.services.server import StatsService, StatusService
from dia_server.services.server.status import ClusterState
from dia_server.web.route_options import route_options
from dia_server.web.schemas import (
    Cluster,
    Config,
    ConfigUpdate,
    Health,
    PerformanceStats,
    Replica,
    RequestStats,
    ResourceStats,
    Stats,
)

LOAD_ROUTE = "/model/load"


class ServerController(Controller):
    tags = ["Server"]

    @get("/health", opt=route_options(public=True))
    async def health(self, status_service: NamedDependency[StatusService]) -> Health:
        """Get the state of the server and its model; the HTTP status is always 200."""
        return _health(status_service)

    @post(LOAD_ROUTE, status_code=202, opt=route_options(errors=(503,)))
    async def load_model(self, status_service: NamedDependency[StatusService]) -> Health:
        """Retry loading the model after a failure; GET /health has the progress."""
        status_service.load()
        return _health(status_service)

    @get("/config")
    async def get_config(self, config_service: NamedDependency[ConfigService]) -> Config:
        """Get the configuration."""
        return _config(config_service)

    @put("/config", opt=route_options(errors=(400, 403, 413, 415, 422, 503)))
    async def update_config(
        self, data: JSONBody[ConfigUpdate], config_service: NamedDependency[ConfigService]
    ) -> Config:
        """Change fields of the configuration and store them in the database."""
        changes = msgspec.structs.asdict(data).items()
        await config_service.update({name: value for name, value in changes if value is not msgspec.UNSET})
        return _config(config_service)

    @delete("/config/{name:str}", status_code=200, opt=route_options(errors=(403, 404, 503)))
    async def give_up_config_value(
        self, name: FromPath[str], config_service: NamedDependency[ConfigService]
    ) -> Config:
        """Delete the stored value of a field, so that its environment variable or default applies again."""
        await config_service.reset(name)
        return _config(config_service)

    @get("/stats", opt=route_options(errors=(503,)))
    async def get_stats(
        self, stats_service: NamedDependency[StatsService], status_service: NamedDependency[StatusService]
    ) -> Stats:
        """Get totals since the database was created, and the current load of the machine."""
        now = await stats_service.stats()
        return Stats(
            RequestStats(now.total, now.successful, now.failed, round(now.success_rate, 1)),
            PerformanceStats(
                round(now.avg_generation_s, 2), round(now.tokens_per_s, 1), spoken_duration(now.audio_s)
            ),
            ResourceStats(
                now.resources.cpu_percent,
                now.resources.memory_percent,
                now.resources.gpu_percent,
                now.resources.gpu_memory_gib,
            ),
            _replicas(status_service.status().cluster),
        )


def _health(service: StatusService) -> Health:
    now = service.status()
    return Health(
        status=now.status,
        version=__version__,
        model_loaded=now.model_loaded,
        gpu_available=now.gpu_count > 0,
        gpu_count=now.gpu_count,
        worker_count=now.worker_count,
        active_jobs=now.active_jobs,
        uptime=spoken_duration(now.uptime_s),
        engine=now.engine,
        loading=now.loading,
        max_characters=now.max_characters,
        error=now.error,
        notes=list(now.notes),
        cluster=_cluster(now.cluster),
        retry=LOAD_ROUTE if now.may_load else None,
    )


def _cluster(state: ClusterState | None) -> Cluster | UnsetType:
    if state is None:
        return UNSET
    return Cluster(
        replicas=len(state.replicas),
        hosts=len({replica.host for replica in state.replicas}),
        slots=sum(replica.slots for replica in state.replicas),
        failovers=state.failovers,
    )


def _replicas(state: ClusterState | None) -> list[Replica] | UnsetType:
    if state is None:
        return UNSET
    replicas = sorted(state.replicas, key=lambda replica: (replica.host, replica.replica_id))
    return [Replica(host=one.host, slots=one.slots, busy=one.busy) for one in replicas]


def _config(service: ConfigService) -> Config:
    return Config(
        **dataclasses.asdict(service.current),
        restart_required=service.restart_required,
        stored=service.stored,
        overridden=service.overridden,
    )


def spoken_duration(seconds: float) -> str:
    """Format a duration as "2h 45m 12s"; leading zero parts are left out, as in "45m 12s"."""
    minutes, s = divmod(int(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}h {m}m {s}s" if h else f"{m}m {s}s" if m else f"{s}s"
