"""Routes of voices and voice mappings."""

from dataclasses import asdict
from typing import Any

import msgspec
from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from dia_server.services.speech import AnchorMaker, CandidateMaker, VoicePreviews
from dia_server.services.voices import service as voices
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.service import VoiceService
from dia_server.web.middleware.rate_limit import RateLimit
from dia_server.web.requests.disconnect import cancel_on_disconnect
from dia_server.web.route_options import route_options
from dia_server.web.schemas import (
    Anchor,
    Voice,
    VoiceMapping,
    VoiceMappingDeleted,
    VoiceMappingRequest,
    VoiceMappingSaved,
    Voices,
    preview_url,
)


class VoiceController(Controller):
    tags = ["Voices"]

    @get("/voices")
    async def list_voices(
        self,
        voice_service: NamedDependency[VoiceService],
        anchor_store: NamedDependency[AnchorStore],
        anchor_maker: NamedDependency[AnchorMaker],
    ) -> Voices:
        """List the voices."""
        model = await anchor_maker.model() if anchor_store.all else ""
        return Voices(
            [
                Voice(
                    voice.name,
                    voice.voice_id,
                    preview_url(voice.voice_id),
                    _anchor(voice, anchor_store, model),
                )
                for voice in voice_service.all.values()
            ]
        )

    @get(
        "/voices/{voice_id:str}/preview",
        media_type="audio/wav",
        opt=route_options(generates_on_get=True, errors=(403, 404, 422, 429, 500, 503)),
    )
    async def get_preview(
        self,
        request: Request[Any, Any, Any],
        voice_id: FromPath[str],
        voice_previews: NamedDependency[VoicePreviews],
        rate_limit: NamedDependency[RateLimit],
        client: NamedDependency[str],
    ) -> Response[bytes]:
        """Get a sample of a voice; it is generated on the first request and after a change of the voice."""
        headers = {"Cache-Control": "no-cache"}

        async def count() -> None:
            headers.update(await rate_limit.consume("generate", request.scope))

        audio = await cancel_on_disconnect(request, voice_previews.get(voice_id, client, count))
        return Response(audio, headers=headers)

    @get("/voice_mappings")
    async def list_mappings(self, voice_service: NamedDependency[VoiceService]) -> dict[str, VoiceMapping]:
        """Get all voice mappings by voice id."""
        return {
            voice_id: msgspec.convert(voice, VoiceMapping, from_attributes=True)
            for voice_id, voice in voice_service.all.items()
        }

    @post("/voice_mappings", status_code=200, opt=route_options(errors=(400, 413, 415, 422, 503)))
    async def save_mapping(
        self, data: JSONBody[VoiceMappingRequest], voice_service: NamedDependency[VoiceService]
    ) -> VoiceMappingSaved:
        """Create or replace a voice mapping."""
        fields = {name: value for name, value in msgspec.structs.asdict(data).items() if value is not UNSET}
        if former := voice_service.all.get(data.voice_id):
            fields = {"display_name": former.display_name, "partner": former.partner} | fields
        saved = await voice_service.save(voices.Voice(**fields))
        return VoiceMappingSaved(message=f"Voice mapping '{data.voice_id}' saved", **asdict(saved))

    @delete("/voice_mappings/{voice_id:str}", status_code=200, opt=route_options(errors=(404, 503)))
    async def delete_mapping(
        self,
        voice_id: FromPath[str],
        voice_service: NamedDependency[VoiceService],
        candidate_maker: NamedDependency[CandidateMaker],
    ) -> VoiceMappingDeleted:
        """Delete a voice, or reset a built-in one; its audio prompt is kept."""
        if voice_id in voice_service.all:
            await candidate_maker.discard(voice_id)
        gone = await voice_service.delete(voice_id)
        done = "deleted" if gone else "is built in and has been reset"
        return VoiceMappingDeleted(f"Voice mapping '{voice_id}' {done}", voice_id)


def _anchor(voice: voices.Voice, store: AnchorStore, model: str) -> Anchor | UnsetType:
    """Return the anchor of a voice, with a note if a model other than `model` made it.

    Returns UNSET if the voice has no anchor, or has a recording, which is used instead.
    """
    found = store.all.get(voice.voice_id)
    if found is None or voice.audio_prompt is not None:
        return UNSET
    anchor = msgspec.convert(found, Anchor, from_attributes=True)
    if model != found.model:
        anchor.note = f"Made by {found.model}, not by {model}. It still works; delete it to get another one."
    return anchor
