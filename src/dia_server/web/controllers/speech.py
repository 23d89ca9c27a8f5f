"""POST /generate, POST /plan and OpenAI's POST /v1/audio/speech."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from litestar import Controller, MediaType, Request, Response, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from litestar.response import Stream

from dia_server.services.jobs import JobService
from dia_server.services.speech import request as speech_request
from dia_server.services.speech.request import Speech, Streamed
from dia_server.services.speech.service import SpeechService
from dia_server.services.speech.timestamps import Timestamp
from dia_server.services.voices.references import Reference, References
from dia_server.units import MIB
from dia_server.web import generation, sse
from dia_server.web.audio_headers import generation_headers, warning_headers
from dia_server.web.requests.disconnect import cancel_on_disconnect
from dia_server.web.requests.json_request import MAX_BODY_WITH_REFERENCE
from dia_server.web.route_options import route_options
from dia_server.web.schemas import (
    AppliedPronunciation,
    DialogueRequest,
    GenerateRequest,
    JobAccepted,
    PlannedUtterance,
    SpeechPlan,
    SpeechRequest,
    SpeechWithTimestamps,
    VoiceReference,
    text_warnings,
)

AsyncMode = Annotated[
    bool,
    QueryParameter(description="Create a job and return its id at once, instead of waiting for the audio"),
]

SLICE = MIB
"""Bytes per slice in which a complete (not streamed) audio file is sent."""
ERRORS = (400, 404, 413, 415, 422, 429, 500, 503)


class SpeechController(Controller):
    tags = ["Speech"]
    opt = route_options(rate_limit="generate", errors=ERRORS, audio=True)

    @post(
        "/generate",
        status_code=200,
        request_max_body_size=MAX_BODY_WITH_REFERENCE,
        opt=route_options(accepted=True, timed=True, events=True),
    )
    async def generate(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[GenerateRequest],
        speech_service: NamedDependency[SpeechService],
        job_service: NamedDependency[JobService],
        references: NamedDependency[References],
        client: NamedDependency[str],
        async_mode: AsyncMode = False,
    ) -> Response[bytes] | Response[JobAccepted] | Stream:
        """Generate speech from text."""
        reference = await reference_of(request, data, references)
        wanted = generation.speech_request(data)
        if async_mode:
            return await accept(job_service, wanted, reference)
        delivery = Delivery(stream=data.stream, events=data.stream and data.timestamps is not None)
        return await answer(request, speech_service, wanted, client, reference, delivery)

    @post(
        "/v1/audio/speech",
        status_code=200,
        request_max_body_size=MAX_BODY_WITH_REFERENCE,
        opt=route_options(timed=True, events=True),
    )
    async def create_speech(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[SpeechRequest],
        speech_service: NamedDependency[SpeechService],
        references: NamedDependency[References],
        client: NamedDependency[str],
    ) -> Response[bytes] | Stream:
        """Generate speech from text, OpenAI-compatible; voice "aria+atlas": aria speaks [S1], atlas [S2]."""
        named = data.voice.id if isinstance(data.voice, VoiceReference) else data.voice or "aria"
        voice, _, voice_2 = named.partition("+")
        audio_format = data.response_format or "wav"
        wanted = speech_request.SpeechRequest(
            text=data.input,
            voice_id=voice,
            voice_id_2=voice_2 or None,
            response_format=audio_format,
            speed=1.0 if data.speed is None else data.speed,
            seed=data.seed,
            normalize=data.normalize,
            normalize_loudness=data.normalize_loudness,
            timestamps=data.timestamps,
            voices=data.voices,
            cast=data.cast,
        )
        reference = await reference_of(request, data, references)
        # WAV is not streamed by default: its header has the length, known only at the end
        timed = data.timestamps is not None  # events or JSON carry them, a stream of audio cannot
        streams = audio_format != "wav" and not timed if data.stream is None else data.stream
        delivery = Delivery(stream=streams, events=data.stream_format == "sse" or (streams and timed))
        return await answer(request, speech_service, wanted, client, reference, delivery)

    @post(
        "/plan",
        status_code=200,
        request_max_body_size=MAX_BODY_WITH_REFERENCE,
        opt=route_options(rate_limit="plan", audio=False, errors=(400, 404, 413, 415, 422, 429, 500, 503)),
    )
    async def plan(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[GenerateRequest],
        speech_service: NamedDependency[SpeechService],
        references: NamedDependency[References],
    ) -> SpeechPlan:
        """Return the segments of a text and their estimated durations, without generating audio."""
        reference = await reference_of(request, data, references)
        return await speech_plan(speech_service, generation.speech_request(data), reference)


async def speech_plan(
    service: SpeechService, wanted: speech_request.SpeechRequest, reference: Reference | None
) -> SpeechPlan:
    """Return the segments of `wanted` and their estimated durations at its speed."""
    prepared = await service.prepare(wanted, reference=reference, make_anchors=False)
    said, planned = prepared.said, prepared.plan
    return SpeechPlan(
        said.text,
        said.text.split() != wanted.text.split(),
        [
            PlannedUtterance(
                one.text,
                one.pause_s + one.gap_s / wanted.speed,
                one.estimated_s / wanted.speed,
                prepared.voice_ids(one),
            )
            for one in planned.utterances
        ],
        planned.duration_s(wanted.speed),
        [AppliedPronunciation(one.word, one.respelling) for one in said.applied],
        text_warnings(wanted.warnings),
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    """How speech is sent to the client."""

    stream: bool
    """Whether the audio is sent while it is generated."""
    events: bool
    """Whether it is sent so as server-sent events, with its timestamps."""


async def answer(
    request: Request[Any, Any, Any],
    service: SpeechService,
    wanted: speech_request.SpeechRequest,
    client: str,
    reference: Reference | None,
    delivery: Delivery,
) -> Response[bytes] | Stream:
    """Return the response with the speech; stop if the client disconnects before it begins."""
    if not (delivery.stream or delivery.events):
        return await _whole(await cancel_on_disconnect(request, service.speak(wanted, client, reference)))
    streamed = await cancel_on_disconnect(request, service.stream(wanted, client, reference))
    if delivery.events:
        return _stream(streamed, sse.events(streamed, len(wanted.text)), sse.MEDIA_TYPE)
    return _stream(streamed)


async def accept(
    jobs: JobService, wanted: speech_request.SpeechRequest, reference: Reference | None
) -> Response[JobAccepted]:
    """Return the response that names the job of a request."""
    job = await jobs.submit(wanted, reference)
    warnings = text_warnings(wanted.warnings)
    return Response(JobAccepted(job.job_id, job.status, "Job queued for processing", warnings))


async def reference_of(
    request: Request[Any, Any, Any],
    data: GenerateRequest | DialogueRequest | SpeechRequest,
    references: References,
) -> Reference | None:
    """Return the reference of the request, if it has one; stop if the client disconnects meanwhile."""
    taking = generation.take_reference(data, references, request.scope)
    return await (taking if data.ref_audio is None else cancel_on_disconnect(request, taking))


async def _whole(speech: Speech) -> Response[bytes] | Stream:
    """Return a response with the audio, or with JSON that holds it beside its timestamps."""
    usage, body, media_type = speech.usage, speech.audio, speech.request.media_type
    if speech.timestamps is not None:
        # on a thread: minutes of audio take a tenth of a second
        body, media_type = (
            await asyncio.to_thread(_with_timestamps, speech, speech.timestamps),
            MediaType.JSON,
        )
    headers = generation_headers(speech.seed, usage.retries, usage.faults, speech.request.warnings)
    if len(body) <= SLICE:
        return Response(body, media_type=media_type, headers=headers)
    headers["Content-Length"] = str(len(body))
    return Stream(_slices(body), media_type=media_type, headers=headers)


def _with_timestamps(speech: Speech, timestamps: Sequence[Timestamp]) -> bytes:
    answer = SpeechWithTimestamps(
        audio=b64encode(speech.audio).decode(),
        media_type=speech.request.media_type,
        timestamps=[*timestamps],
        seed=speech.seed,
        retries=speech.usage.retries,
        faults=[*speech.usage.faults],
    )
    return msgspec.json.encode(answer)


async def _slices(audio: bytes) -> AsyncIterator[bytes]:
    """Yield a file in slices: Granian copies each body it sends, so a whole file would be in memory twice."""
    for start in range(0, len(audio), SLICE):
        yield audio[start : start + SLICE]


def _stream(
    streamed: Streamed, content: AsyncIterable[bytes] | None = None, media_type: str | None = None
) -> Stream:
    """Return a response with `content` (default: the audio); it closes `streamed`, also on a disconnect."""
    headers = {
        "X-Seed": str(streamed.seed),
        "Cache-Control": "no-cache",
        **warning_headers(streamed.warnings),
    }
    return Stream(
        content or streamed,
        media_type=media_type or streamed.media_type,
        headers=headers,
        background=BackgroundTask(streamed.aclose),  # on a disconnect Litestar closes no iterator
    )
