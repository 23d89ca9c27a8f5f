"""The messages of the WebSocket: field for field what the API reference documents, and ours beside them.

`request_id` is a client's own name for a generation; all that concerns the generation bears it.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from dia_server.web.schemas import GenerateRequest

Stage = Literal["queued", "generating_tokens"]
RequestId = Annotated[str, Meta(max_length=64)]


class LiveRequest(GenerateRequest, kw_only=True):
    stream: bool = False
    """Send the audio too, as it is made."""


class Generate(Struct, tag="generate", kw_only=True):
    data: LiveRequest
    request_id: RequestId | None = None


class Cancel(Struct, tag="cancel", kw_only=True):
    job_id: str


class Named(Struct):
    """What can still be told of a message that is wrong elsewhere."""

    request_id: RequestId | None = None


class Progress(Struct, tag="progress", kw_only=True, omit_defaults=True):
    job_id: str
    progress: int
    """Percent."""
    stage: Stage
    request_id: str | None = None


class Audio(Struct, tag="audio", kw_only=True, omit_defaults=True):
    """Announces the binary message that follows: the next bytes of one file in the format asked for."""

    job_id: str
    size: int
    """Bytes."""
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


Outgoing = Progress | Audio | Complete | Cancelled | Error

decode = msgspec.json.Decoder(Generate | Cancel).decode
encode = msgspec.json.Encoder().encode


def request_id_of(text: str) -> str | None:
    """The name that a message which is refused gives itself, if that can be made out."""
    try:
        return msgspec.json.decode(text, type=Named).request_id
    except msgspec.DecodeError:
        return None
