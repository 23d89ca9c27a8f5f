"""Routes for monitoring: liveness and readiness probes, Prometheus metrics."""

from litestar import Controller, MediaType, Response, get
from litestar.di import NamedDependency

from dia_server.services.server import Metrics, StatusService, metrics
from dia_server.web.route_options import route_options
from dia_server.web.schemas import Probe


class MonitoringController(Controller):
    tags = ["Server"]

    @get("/health/live", opt=route_options(public=True))
    async def live(self) -> Probe:
        """Liveness probe: 200 while the process answers; restart the server when it does not."""
        return Probe("alive")

    @get("/health/ready", opt=route_options(public=True, errors=(503,)))
    async def ready(self, status_service: NamedDependency[StatusService]) -> Probe:
        """Readiness probe: 200 while speech can be generated and jobs stored, else 503."""
        await status_service.require_ready()
        return Probe("ready")

    @get("/metrics", media_type=MediaType.TEXT)
    async def metrics(self, metrics_service: NamedDependency[Metrics]) -> Response[bytes]:
        """Get the metrics in Prometheus's text format."""
        return Response(await metrics_service.render(), media_type=metrics.MEDIA_TYPE)
