"""OpenAI-compatible routes for models and voices."""

from dataclasses import dataclass
from typing import Any

from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Operation, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath

from dia_server.errors import Invalid, NotFound
from dia_server.services.speech import CandidateMaker
from dia_server.services.voices.custom_voices import CustomVoices
from dia_server.services.voices.prompt_folder import MAX_AUDIO
from dia_server.services.voices.service import VoiceService
from dia_server.services.voices.spool import Spool
from dia_server.services.voices.transcripts import TranscriptService
from dia_server.web import forms
from dia_server.web.middleware.client_address import ClientAddress
from dia_server.web.requests import upload
from dia_server.web.requests.concurrency_limit import ConcurrencyLimit
from dia_server.web.route_options import route_options
from dia_server.web.schemas import (
    AudioModel,
    AudioModels,
    AudioVoice,
    AudioVoices,
    CustomVoice,
    CustomVoiceDeleted,
    Model,
    Models,
    ModelVoice,
    ModelVoices,
    preview_url,
)

DIA = Model(id="dia", created=1_750_896_000, owned_by="nari-labs")
"""The only model; `created` is the release date of Dia-1.6B-0626."""

SAMPLE_FIELD = "audio_sample"
SAMPLE_TYPE = "audio_sample"
"""The only value of the form's field `type` that is supported; OpenAI's other one is "prompt"."""


@dataclass
class VoiceOperation(Operation):
    """OpenAPI description of the form, written by hand because the handler reads the form itself."""

    def __post_init__(self) -> None:
        name = Schema(type=OpenAPIType.STRING, description="Name of the voice, in any script")
        consent = Schema(type=OpenAPIType.STRING, description="Statement of consent, which is kept as it is")
        kind = Schema(type=OpenAPIType.STRING, enum=[SAMPLE_TYPE], default=SAMPLE_TYPE)
        alias = Schema(type=OpenAPIType.STRING, description="Alias of transcript; ignored if that is given")
        fields = {
            "name": name,
            SAMPLE_FIELD: forms.RECORDING,
            "transcript": forms.TRANSCRIPT,
            "ref_text": alias,
            "consent": consent,
            "type": kind,
        }
        self.request_body = forms.form_body(fields, ["name", SAMPLE_FIELD])


class OpenAIController(Controller):
    tags = ["OpenAI"]

    @get("/v1/models")
    async def list_models(self) -> Models:
        """List the models; there is one, dia."""
        return Models(data=[DIA])

    @get("/v1/models/{model:str}", opt=route_options(errors=(404,)))
    async def get_model(self, model: FromPath[str]) -> Model:
        """Get a model by id."""
        if model != DIA.id:
            raise NotFound(f"Model {model!r} does not exist; GET /v1/models lists the models", param="model")
        return DIA

    @get("/v1/audio/models")
    async def list_audio_models(self) -> AudioModels:
        """List the speech models in Open WebUI's format."""
        return AudioModels([AudioModel(DIA.id)])

    @get("/v1/audio/voices")
    async def list_voices(self, voice_service: NamedDependency[VoiceService]) -> AudioVoices:
        """List the voices in Open WebUI's format."""
        return AudioVoices(
            [
                AudioVoice(voice.voice_id, voice.name, voice.voice_id, preview_url(voice.voice_id))
                for voice in voice_service.all.values()
            ]
        )

    @post(
        "/v1/audio/voices",
        status_code=200,
        request_max_body_size=MAX_AUDIO,
        operation_class=VoiceOperation,
        opt=route_options(rate_limit="upload", errors=(400, 409, 413, 415, 422, 429, 500, 503)),
    )
    async def create_voice(
        self,
        request: Request[Any, Any, Any],
        custom_voices: NamedDependency[CustomVoices],
        spool: NamedDependency[Spool],
        transcript_service: NamedDependency[TranscriptService],
        client_address: NamedDependency[ClientAddress],
        upload_limit: NamedDependency[ConcurrencyLimit],
    ) -> CustomVoice:
        """Create a voice of a recording, OpenAI-compatible; its audio prompt has the same id."""
        with upload_limit.hold(client_address(request.scope)):
            async with upload.receive(request, SAMPLE_FIELD, spool.spool) as form:
                fields = form.fields
                name = forms.require(fields, "name")
                if fields.get("type", SAMPLE_TYPE) != SAMPLE_TYPE:
                    raise Invalid(f"type: it must be {SAMPLE_TYPE}", param="type")
                transcript = forms.transcript_in(fields) or forms.transcript_in(fields, "ref_text")
                with forms.naming_field(SAMPLE_FIELD):
                    made = await custom_voices.create(
                        name, form.file, transcript=transcript, consent=fields.get("consent", "")
                    )
        prompt = await transcript_service.ensure_transcript(made.prompt)
        return CustomVoice(
            id=made.voice.voice_id,
            name=made.voice.name,
            created_at=int(prompt.created_at.timestamp()),
            transcript=prompt.transcript,
            needs_review=prompt.needs_review,
            note=transcript_service.note(prompt),
        )

    @delete("/v1/audio/voices/{name:str}", status_code=200, opt=route_options(errors=(404, 409, 503)))
    async def delete_voice(
        self,
        name: FromPath[str],
        custom_voices: NamedDependency[CustomVoices],
        voice_service: NamedDependency[VoiceService],
        candidate_maker: NamedDependency[CandidateMaker],
    ) -> CustomVoiceDeleted:
        """Delete a voice by its id; also its recording, if POST /v1/audio/voices made it for this voice."""
        voice_service.require_deletable(name)
        await candidate_maker.discard(name)
        await custom_voices.delete(name)
        return CustomVoiceDeleted(id=name)

    @get("/v1/audio/voices/{name:str}")
    async def list_model_voices(
        self, name: FromPath[str], voice_service: NamedDependency[VoiceService]
    ) -> ModelVoices:
        """List all voices, whatever model `name` is, in the format of SillyTavern's TTS WebUI provider."""
        return ModelVoices(
            [
                ModelVoice(
                    voice.voice_id,
                    voice.name,
                    voice.voice_id,
                    preview_url(voice.voice_id),
                    value=voice.voice_id,
                    label=voice.name,
                )
                for voice in voice_service.all.values()
            ]
        )
