from msgspec import Struct

from dia_server.db.engine import BUSY_TIMEOUT_MS
from dia_server.services.jobs import recorder, retention, worker


class Timing(Struct, frozen=True, kw_only=True):
    """Internal timeouts and intervals. Operators cannot set them; tests make them shorter."""

    busy_timeout_ms: int = BUSY_TIMEOUT_MS
    job_retry_s: float = worker.RETRY_S
    job_progress_interval_s: float = worker.PROGRESS_INTERVAL_S
    recorder_retry_s: float = recorder.RETRY_S
    retention_interval_s: float = retention.INTERVAL_S
