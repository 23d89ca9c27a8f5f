"""Routes of jobs: list, status, result, cancel or delete."""

from typing import Annotated

from litestar import Controller, Response, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from dia_server.services.jobs import Job, JobListItem, JobService, JobStatus, subtitles
from dia_server.services.speech.request import SpeechRequest, TextWarning
from dia_server.web.audio_headers import generation_headers
from dia_server.web.route_options import route_options
from dia_server.web.schemas import (
    JobDetails,
    JobRemoved,
    Jobs,
    JobSummary,
    JobTimestamps,
    text_warnings,
)

MAX_LIMIT = 1000

StatusFilter = Annotated[JobStatus | None, QueryParameter(description="Only jobs with this status")]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Maximum number of jobs to return")]


class JobController(Controller):
    path = "/jobs"
    tags = ["Jobs"]
    opt = route_options(rate_limit="jobs")

    @get("", opt=route_options(errors=(422, 429, 503)))
    async def list_jobs(
        self, job_service: NamedDependency[JobService], status: StatusFilter = None, limit: Limit = 50
    ) -> Jobs:
        """List jobs, newest first."""
        return Jobs([_summary(item) for item in await job_service.newest(status, limit)])

    @get("/{job_id:str}", opt=route_options(errors=(404, 429, 503)))
    async def get_job(self, job_id: FromPath[str], job_service: NamedDependency[JobService]) -> JobDetails:
        """Get the status and progress of a job."""
        return _details(await job_service.get(job_id))

    @get("/{job_id:str}/result", opt=route_options(errors=(404, 409, 429, 503), audio=True))
    async def get_job_result(self, job_id: FromPath[str], job_service: NamedDependency[JobService]) -> Stream:
        """Download the audio of a completed job."""
        result = await job_service.result(job_id)
        job = result.job
        headers = {
            "Content-Length": str(result.size),
            "Content-Disposition": f'inline; filename="{job.file}"',
        }
        headers |= generation_headers(_seed(job), job.retries, job.faults, _warnings(job.request))
        return Stream(result.audio, media_type=result.media_type, headers=headers)

    @get("/{job_id:str}/timestamps", opt=route_options(errors=(404, 409, 429, 503)))
    async def get_job_timestamps(
        self, job_id: FromPath[str], job_service: NamedDependency[JobService]
    ) -> JobTimestamps:
        """Get when each part of a completed job's audio is said."""
        granularity, found = await job_service.timestamps(job_id)
        return JobTimestamps(job_id=job_id, granularity=granularity, timestamps=[*found])

    @get(
        "/{job_id:str}/subtitles.srt",
        media_type="application/x-subrip",
        opt=route_options(errors=(404, 409, 429, 503)),
    )
    async def get_job_srt(
        self, job_id: FromPath[str], job_service: NamedDependency[JobService]
    ) -> Response[str]:
        """Download the timestamps of a completed job as SubRip subtitles."""
        _, found = await job_service.timestamps(job_id)
        return Response(subtitles.srt(found))

    @get("/{job_id:str}/subtitles.vtt", media_type="text/vtt", opt=route_options(errors=(404, 409, 429, 503)))
    async def get_job_vtt(
        self, job_id: FromPath[str], job_service: NamedDependency[JobService]
    ) -> Response[str]:
        """Download the timestamps of a completed job as WebVTT subtitles."""
        _, found = await job_service.timestamps(job_id)
        return Response(subtitles.vtt(found))

    @delete("/{job_id:str}", status_code=200, opt=route_options(errors=(404, 429, 503)))
    async def delete_job(self, job_id: FromPath[str], job_service: NamedDependency[JobService]) -> JobRemoved:
        """Cancel a pending or running job, or delete a finished one with its result."""
        done = await job_service.remove(job_id)
        return JobRemoved(f"Job '{job_id}' {done}", job_id, done)


def _summary(item: JobListItem) -> JobSummary:
    request = item.request_summary
    return JobSummary(
        job_id=item.job_id,
        status=item.status,
        created_at=item.created_at,
        text_preview=item.text_preview,
        duration=_duration(item),
        progress=int(item.progress * 100),
        error=item.error,
        voice_id=None if request is None else request.voice_id,
        response_format=None if request is None else request.response_format,
        retries=item.retries,
        faults=list(item.faults),
    )


def _duration(job: Job | JobListItem) -> float | None:
    """Return the seconds of audio of a completed job, None for any other job, even if they are stored."""
    return round(job.audio_s, 2) if job.status == "completed" and job.audio_s is not None else None


def _details(job: Job) -> JobDetails:
    completed, request = job.status == "completed", job.request
    return JobDetails(
        job_id=job.job_id,
        status=job.status,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.finished_at,
        duration=_duration(job),
        result_url=f"/jobs/{job.job_id}/result" if completed else None,
        progress=int(job.progress * 100),
        error=job.error,
        generation_time=round(job.generation_s, 2) if completed and job.generation_s is not None else None,
        voice_id=None if request is None else request.voice_id,
        response_format=None if request is None else request.response_format,
        seed=_seed(job),
        retries=job.retries,
        faults=list(job.faults),
        warnings=text_warnings(_warnings(job.request)),
    )


def _warnings(request: SpeechRequest | None) -> tuple[TextWarning, ...]:
    """Return the warnings of a job's request, none if this version cannot read the stored request."""
    return () if request is None else request.warnings


def _seed(job: Job) -> int | None:
    """Return the seed of the job's request, None if this version cannot read the stored request."""
    return None if job.request is None else job.request.seed
