"""Converts bodies of POST /generate and of the WebSocket to requests for the speech service."""

import msgspec
from litestar.types import Scope
from msgspec import UNSET

from dia_server.services.speech.request import SpeechRequest
from dia_server.services.voices.references import Reference, References
from dia_server.web import forms
from dia_server.web.requests import held_body
from dia_server.web.schemas import GenerateRequest
from dia_server.web.schemas import SpeechRequest as OpenAISpeechRequest

DEFAULT_VOICE = "aria"
ELSEWHERE = ("stream", "ref_audio", "ref_text")
"""Fields that are not part of a SpeechRequest."""


def speech_request(data: GenerateRequest) -> SpeechRequest:
    """Return `data` as a SpeechRequest; its voice is `voice_id`, else `voice`, else DEFAULT_VOICE."""
    fields = msgspec.structs.asdict(data)
    for name in ELSEWHERE:
        del fields[name]
    alias = fields.pop("voice")
    if fields["voice_id"] is UNSET:
        fields["voice_id"] = DEFAULT_VOICE if alias is None else alias
    return SpeechRequest(**fields)


async def take_reference(
    data: GenerateRequest | OpenAISpeechRequest, references: References, scope: Scope
) -> Reference | None:
    """Resolve the reference in `data`, and remove its text, up to 14 MB, which would stay in memory.

    Raises as `References.resolve`.
    """
    audio, data.ref_audio = data.ref_audio, None
    with forms.naming_field("ref_audio"):
        reference = await references.resolve(audio, data.ref_text)
    held_body.release(scope)
    return reference
