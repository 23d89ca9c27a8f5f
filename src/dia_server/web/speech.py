"""POST /generate and its OpenAI twin."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from dia_server.services import speech
from dia_server.services.jobs import JobService
from dia_server.services.speech import Speech, SpeechService
from dia_server.web.disconnect import unless_gone
from dia_server.web.schemas import GenerateRequest, JobAccepted, SpeechRequest

AsyncMode = Annotated[
    bool, QueryParameter(description="Answer at once with a job, whose result is fetched when it is made")
]

ERRORS = (400, 404, 413, 415, 422, 429, 500, 503)


class SpeechController(Controller):
    tags = ["Speech"]
    opt = {"rate_limit": "generate", "errors": ERRORS, "audio": True}

    @post("/generate", status_code=200, opt={"accepted": True})
    async def generate(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[GenerateRequest],
        speech_service: NamedDependency[SpeechService],
        job_service: NamedDependency[JobService],
        async_mode: AsyncMode = False,
    ) -> Response[bytes] | Response[JobAccepted]:
        """Generate speech from text."""
        wanted = speech.SpeechRequest(**msgspec.structs.asdict(data))
        if async_mode:
            job = await job_service.submit(wanted)
            return Response(JobAccepted(job.job_id, job.status, "Job queued for processing"))
        return _audio(await unless_gone(request, speech_service.speak(wanted)))

    @post("/v1/audio/speech", status_code=200)
    async def create_speech(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[SpeechRequest],
        speech_service: NamedDependency[SpeechService],
    ) -> Response[bytes]:
        """Generate speech from text, OpenAI-compatible."""
        wanted = speech.SpeechRequest(
            text=data.input,
            voice_id=data.voice if isinstance(data.voice, str) else data.voice.id,
            response_format=data.response_format,
            speed=data.speed,
            seed=data.seed,
        )
        return _audio(await unless_gone(request, speech_service.speak(wanted)))


def _audio(made: Speech) -> Response[bytes]:
    return Response(made.audio, media_type=made.media_type, headers={"X-Seed": str(made.seed)})
