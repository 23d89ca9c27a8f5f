"""The server itself: health."""

from litestar import Controller, get
from litestar.di import NamedDependency

from dia_server import __version__
from dia_server.services.status import StatusService
from dia_server.web.schemas import Health


class ServerController(Controller):
    tags = ["Server"]

    @get("/health", opt={"public": True})
    async def health(self, status_service: NamedDependency[StatusService]) -> Health:
        """Tell how the server is; the answer is 200 as long as it answers at all."""
        now = status_service.status()
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
            error=now.error,
        )


def spoken_duration(seconds: float) -> str:
    """Write a duration as "2h 45m 12s", without leading parts that are nothing."""
    minutes, s = divmod(int(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}h {m}m {s}s" if h else f"{m}m {s}s" if m else f"{s}s"
