"""OpenAI-compatible routes for models and voices."""

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from dia_server.errors import NotFound
from dia_server.services.voices.service import VoiceService
from dia_server.web.route_options import route_options
from dia_server.web.schemas import (
    AudioModel,
    AudioModels,
    AudioVoice,
    AudioVoices,
    Model,
    Models,
    ModelVoice,
    ModelVoices,
)

DIA = Model(id="dia", created=1_750_896_000, owned_by="nari-labs")
"""The only model; `created` is the release date of Dia-1.6B-0626."""


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
            [AudioVoice(voice.voice_id, voice.name, voice.voice_id) for voice in voice_service.all.values()]
        )

    @get("/v1/audio/voices/{model:str}")
    async def list_model_voices(
        self, model: FromPath[str], voice_service: NamedDependency[VoiceService]
    ) -> ModelVoices:
        """List the voices of a model in the format of SillyTavern's TTS WebUI provider."""
        return ModelVoices(
            [
                ModelVoice(voice.voice_id, voice.name, voice.voice_id, value=voice.voice_id, label=voice.name)
                for voice in voice_service.all.values()
            ]
        )
