"""The messages of the WebSocket, field for field what the API reference documents, and ours beside them."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from dia_server.web.schemas import GenerateRequest

RequestId = Annotated[str, Meta(max_length=64)]
"""A client's own name for a generation, sent back with all that concerns it."""

Stage = Literal["queued", "generating_tokens", "saving"]


class LiveRequest(GenerateRequest, kw_only=True):
    stream: bool = False
    """Send the audio too, as it is made."""


class Generate(Struct, tag="generate", kw_only=True):
    data: LiveRequest
    request_id: RequestId | None = None


class Cancel(Struct, tag="cancel", kw_only=True):
    job_id: str


class Progress(Struct, tag="progress", kw_only=True, omit_defaults=True):
    job_id: str
    progress: int
    """Percent."""
    stage: Stage
    request_id: str | None = None


class Audio(Struct, tag="audio", kw_only=True, omit_defaults=True):
    """Announces the binary message that follows: mono 16-bit little-endian PCM."""

    job_id: str
    sample_rate: int
    bytes: int
    request_id: str | None = None


class Complete(Struct, tag="complete", kw_only=True, omit_defaults=True):
    job_id: str
    audio_url: str
    request_id: str | None = None


class Cancelled(Struct, tag="cancelled", kw_only=True, omit_defaults=True):
    job_id: str
    request_id: str | None = None


class Error(Struct, tag="error", kw_only=True, omit_defaults=True):
    message: str
    error_code: str
    job_id: str | None = None
    request_id: str | None = None


Incoming = Generate | Cancel
Outgoing = Progress | Audio | Complete | Cancelled | Error

decoder = msgspec.json.Decoder(Incoming)
encoder = msgspec.json.Encoder()
