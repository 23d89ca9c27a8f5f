"""Routes of voice design: make candidates of a voice's anchor, hear them, keep one."""

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from dia_server.services.speech import CandidateMaker
from dia_server.services.speech import candidate_request as design
from dia_server.services.speech.anchor_maker import SCRIPT
from dia_server.services.voices import candidates
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.service import VoiceService
from dia_server.web.route_options import route_options
from dia_server.web.schemas import (
    Anchor,
    AnchorRequest,
    Candidate,
    CandidateRequest,
    Candidates,
    VoiceMappingDeleted,
)


class DesignController(Controller):
    path = "/voices/{voice_id:str}"
    tags = ["Voices"]

    @post(
        "/candidates",
        status_code=202,
        opt=route_options(rate_limit="generate", errors=(400, 404, 409, 413, 415, 422, 429, 503)),
    )
    async def make_candidates(
        self,
        voice_id: FromPath[str],
        data: JSONBody[CandidateRequest],
        candidate_maker: NamedDependency[CandidateMaker],
    ) -> Candidates:
        """Make candidates of a voice's anchor in the background; they replace the voice's former ones."""
        request = design.CandidateRequest(
            count=data.count,
            seed=data.seed,
            style=data.style,
            text=SCRIPT if data.text is None else data.text,
        )
        made = await candidate_maker.make(voice_id, request)
        return Candidates([_candidate(one, candidate_maker) for one in made])

    @get("/candidates", opt=route_options(errors=(404, 503)))
    async def list_candidates(
        self, voice_id: FromPath[str], candidate_maker: NamedDependency[CandidateMaker]
    ) -> Candidates:
        """List a voice's candidates, the most promising first."""
        found = await candidate_maker.ranked(voice_id)
        return Candidates([_candidate(one, candidate_maker) for one in found])

    @delete("/candidates", status_code=200, opt=route_options(errors=(404, 503)))
    async def delete_candidates(
        self, voice_id: FromPath[str], candidate_maker: NamedDependency[CandidateMaker]
    ) -> VoiceMappingDeleted:
        """Cancel a voice's unfinished candidates and delete all of them; its anchor is kept."""
        voice_id = await candidate_maker.discard(voice_id)
        return VoiceMappingDeleted(f"Voice '{voice_id}' has no candidates now", voice_id)

    @get(
        "/candidates/{candidate_id:str}/audio",
        media_type="audio/wav",
        opt=route_options(errors=(404, 409, 422, 503)),
    )
    async def get_candidate_audio(
        self,
        voice_id: FromPath[str],
        candidate_id: FromPath[str],
        candidate_maker: NamedDependency[CandidateMaker],
    ) -> Response[bytes]:
        """Download the audio of a completed candidate as a WAV file."""
        audio = await candidate_maker.audio(voice_id, candidate_id)
        return Response(audio, headers={"Cache-Control": "no-cache"})

    @post("/anchor", status_code=200, opt=route_options(errors=(400, 404, 409, 413, 415, 422, 503)))
    async def keep_candidate(
        self,
        voice_id: FromPath[str],
        data: JSONBody[AnchorRequest],
        candidate_maker: NamedDependency[CandidateMaker],
    ) -> Anchor:
        """Keep a candidate as the voice's anchor: from now on the voice sounds like it."""
        kept = await candidate_maker.keep(voice_id, data.candidate_id)
        return msgspec.convert(kept, Anchor, from_attributes=True)

    @delete("/anchor", status_code=200, opt=route_options(errors=(404, 503)))
    async def delete_anchor(
        self,
        voice_id: FromPath[str],
        voice_service: NamedDependency[VoiceService],
        anchor_store: NamedDependency[AnchorStore],
    ) -> VoiceMappingDeleted:
        """Delete a voice's anchor, if it has one; Dia makes another one before the voice's next use."""
        voice_id = voice_service.resolve(voice_id).voice_id
        await anchor_store.delete(voice_id)
        return VoiceMappingDeleted(f"Voice '{voice_id}' has no anchor now", voice_id)


def _candidate(one: candidates.Candidate, maker: CandidateMaker) -> Candidate:
    audio_url = f"/voices/{one.voice_id}/candidates/{one.candidate_id}/audio"
    return Candidate(
        candidate_id=one.candidate_id,
        voice_id=one.voice_id,
        status=one.status,
        seed=one.seed,
        style=one.style,
        transcript=one.transcript,
        audio_url=audio_url if one.status == "completed" else None,
        duration=one.duration,
        faults=one.faults,
        pitch=one.pitch,
        word_errors=one.word_errors,
        checking=maker.is_checking(one),
        error=one.error,
        created_at=one.created_at,
    )
