"""Durable jobs: their store, their worker, their results and the retention."""

from dia_server.services.jobs.outputs import Outputs
from dia_server.services.jobs.recorder import Recorder
from dia_server.services.jobs.references import JobReferences
from dia_server.services.jobs.retention import Retention
from dia_server.services.jobs.service import JobService, Result, RunningJob
from dia_server.services.jobs.store import Job, JobListItem, JobStatus, JobStore
from dia_server.services.jobs.worker import JobWorker

__all__ = [
    "Job",
    "JobListItem",
    "JobReferences",
    "JobService",
    "JobStatus",
    "JobStore",
    "JobWorker",
    "Outputs",
    "Recorder",
    "Result",
    "Retention",
    "RunningJob",
]
