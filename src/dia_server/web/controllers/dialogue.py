"""POST /v1/text-to-dialogue and its /stream, as ElevenLabs has them, and its /plan."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from litestar.response import Stream

from dia_server.services.jobs import JobService
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.speech.service import SpeechService
from dia_server.services.voices.references import References
from dia_server.web import generation
from dia_server.web.controllers.speech import (
    ERRORS,
    AsyncMode,
    Delivery,
    accept,
    answer,
    reference_of,
    speech_plan,
)
from dia_server.web.requests.json_request import MAX_BODY_WITH_REFERENCE
from dia_server.web.route_options import route_options
from dia_server.web.schemas import DialogueRequest, JobAccepted, SpeechPlan

OutputFormat = Annotated[
    str | None,
    QueryParameter(
        description="Name of ElevenLabs for response_format, which it replaces: mp3_44100_128, "
        "opus_48000_64, wav_44100 or pcm_24000. Other rates of mp3, opus and wav are accepted, not applied"
    ),
]


class DialogueController(Controller):
    path = "/v1/text-to-dialogue"
    tags = ["Speech"]
    opt = route_options(rate_limit="generate", errors=ERRORS, audio=True)

    @post(
        "",
        status_code=200,
        request_max_body_size=MAX_BODY_WITH_REFERENCE,
        opt=route_options(accepted=True, timed=True, events=True),
    )
    async def create_dialogue(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[DialogueRequest],
        speech_service: NamedDependency[SpeechService],
        job_service: NamedDependency[JobService],
        references: NamedDependency[References],
        client: NamedDependency[str],
        output_format: OutputFormat = None,
        async_mode: AsyncMode = False,
    ) -> Response[bytes] | Response[JobAccepted] | Stream:
        """Generate a dialogue of any number of voices, ElevenLabs-compatible."""
        with generation.naming_inputs(data):
            wanted = _wanted(data, output_format)
            reference = await reference_of(request, data, references)
            if async_mode:
                return await accept(job_service, wanted, reference)
            delivery = Delivery(stream=data.stream, events=data.stream and data.timestamps is not None)
            return await answer(request, speech_service, wanted, client, reference, delivery)

    @post(
        "/stream",
        status_code=200,
        request_max_body_size=MAX_BODY_WITH_REFERENCE,
        opt=route_options(events=True),
    )
    async def stream_dialogue(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[DialogueRequest],
        speech_service: NamedDependency[SpeechService],
        references: NamedDependency[References],
        client: NamedDependency[str],
        output_format: OutputFormat = None,
    ) -> Response[bytes] | Stream:
        """Generate a dialogue as POST /v1/text-to-dialogue does, and send it while it is generated."""
        with generation.naming_inputs(data):
            wanted = _wanted(data, output_format)
            reference = await reference_of(request, data, references)
            delivery = Delivery(stream=True, events=data.timestamps is not None)
            return await answer(request, speech_service, wanted, client, reference, delivery)

    @post(
        "/plan",
        status_code=200,
        request_max_body_size=MAX_BODY_WITH_REFERENCE,
        opt=route_options(rate_limit="plan", audio=False),
    )
    async def plan_dialogue(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[DialogueRequest],
        speech_service: NamedDependency[SpeechService],
        references: NamedDependency[References],
    ) -> SpeechPlan:
        """Return the segments of a dialogue as POST /plan does, without generating audio."""
        with generation.naming_inputs(data):
            reference = await reference_of(request, data, references)
            return await speech_plan(speech_service, generation.speech_request(data), reference)


def _wanted(data: DialogueRequest, output_format: str | None) -> SpeechRequest:
    if output_format is not None:
        data.response_format = generation.audio_format(output_format)
    return generation.speech_request(data)
