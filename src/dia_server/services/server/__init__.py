"""The server itself: status, statistics, metrics, resources and shutdown."""

from dia_server.services.server.announcement import Announcement
from dia_server.services.server.metrics import Metrics, SocketOutcome
from dia_server.services.server.minute_counts import MinuteCounts
from dia_server.services.server.request_counts import LocalCounts, RequestCounts, SharedCounts
from dia_server.services.server.resources import ResourceMonitor, Resources
from dia_server.services.server.shutdown import Shutdown
from dia_server.services.server.stats import Stats, StatsService
from dia_server.services.server.status import EngineName, State, Status, StatusService

__all__ = [
    "Announcement",
    "EngineName",
    "LocalCounts",
    "Metrics",
    "MinuteCounts",
    "RequestCounts",
    "ResourceMonitor",
    "Resources",
    "SharedCounts",
    "Shutdown",
    "SocketOutcome",
    "State",
    "Stats",
    "StatsService",
    "Status",
    "StatusService",
]
