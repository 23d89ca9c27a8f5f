"""Converts bodies of POST /generate and of the WebSocket to requests for the speech service."""

import msgspec
from msgspec import UNSET

from dia_server.services.speech.request import SpeechRequest
from dia_server.web.schemas import GenerateRequest

DEFAULT_VOICE = "aria"


def speech_request(data: GenerateRequest) -> SpeechRequest:
    """Return `data` as a SpeechRequest; its voice is `voice_id`, else `voice`, else DEFAULT_VOICE."""
    fields = msgspec.structs.asdict(data)
    del fields["stream"]
    alias = fields.pop("voice")
    if fields["voice_id"] is UNSET:
        fields["voice_id"] = DEFAULT_VOICE if alias is None else alias
    return SpeechRequest(**fields)
