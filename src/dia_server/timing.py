"""Timeouts and intervals that tests shorten."""

from dataclasses import dataclass

from dia_server.db.engine import BUSY_TIMEOUT_MS
from dia_server.services.jobs import recorder, retention, worker
from dia_server.services.peers import membership


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Internal timeouts and intervals. Operators cannot set them; tests make them shorter."""

    busy_timeout_ms: int = BUSY_TIMEOUT_MS
    job_retry_s: float = worker.RETRY_S
    job_progress_interval_s: float = worker.PROGRESS_INTERVAL_S
    recorder_retry_s: float = recorder.RETRY_S
    retention_interval_s: float = retention.INTERVAL_S
    heartbeat_s: float = membership.HEARTBEAT_S
    lease_s: float = membership.LEASE_S
