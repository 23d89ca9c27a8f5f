"""Messages of the WebSocket.

`request_id` is the client's own id of a generation. The messages about the generation repeat it, except an
error in cancelling it, which has only its `job_id`.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from dia_server.errors import PayloadTooLarge, ServerError
from dia_server.services.speech.timestamps import Timestamp
from dia_server.units import MIB
from dia_server.web.requests import json_body
from dia_server.web.schemas import DialogueRequest, GenerateRequest, TextWarning

MAX_MESSAGE = MIB
"""Maximum bytes of a message, the same as of a JSON body."""

DESCRIPTION = """
## The WebSocket `/ws/generate`

Runs several generations concurrently on one socket, and sends their progress and, on request, their audio.
The client sends:

```json
{"type": "generate", "data": {"text": "Hello, world!", "voice_id": "aria"}, "request_id": "a"}
{"type": "dialogue", "data": {"inputs": [{"text": "Hello!", "voice_id": "aria"}]}, "request_id": "b"}
{"type": "cancel", "job_id": "12345"}
```

`data` takes every field of `POST /generate`, or for a dialogue of `POST /v1/text-to-dialogue`; with
`"stream": true` the audio is sent too. `request_id` is optional; every message about the generation repeats
it, except that the error of a failed `cancel` names only the `job_id`. The server sends:

```json
{"type": "progress", "job_id": "12345", "progress": 45, "stage": "generating_tokens", "request_id": "a"}
{"type": "audio", "job_id": "12345", "size": 8820, "request_id": "a"}
{"type": "timestamps", "job_id": "12345", "timestamps": []}
{"type": "complete", "job_id": "12345", "audio_url": "/jobs/12345/result", "request_id": "a"}
{"type": "cancelled", "job_id": "12345", "request_id": "a"}
{"type": "error", "message": "Generation failed", "error_code": "GENERATION_FAILED", "job_id": "12345"}
```

`stage` is `queued` or `generating_tokens`. The first `progress` has `warnings`, as `POST /plan` has, if there
are any. `timestamps` has the items of `GET /jobs/{job_id}/timestamps` for one segment, after its audio.
`audio` announces a binary message: the next `size` bytes of one file. An error keeps the socket open, and has
the same codes as the routes, with `param` and `limit`. When the client disconnects, its generations are
cancelled. With API keys, browsers connect to `/ws/generate?api_key=KEY`.
"""
"""Markdown for the description text of /openapi.json, because OpenAPI cannot describe WebSockets."""

Stage = Literal["queued", "generating_tokens"]
RequestId = Annotated[str, Meta(max_length=64)]


class LiveRequest(GenerateRequest, kw_only=True):
    stream: bool = False
    """True to also send the audio while it is generated."""


class Generate(Struct, tag="generate", kw_only=True):
    data: LiveRequest
    request_id: RequestId | None = None


class LiveDialogue(DialogueRequest, kw_only=True):
    stream: bool = False
    """True to also send the audio while it is generated."""


class Dialogue(Struct, tag="dialogue", kw_only=True):
    data: LiveDialogue
    request_id: RequestId | None = None


class Cancel(Struct, tag="cancel", kw_only=True):
    job_id: str


class Named(Struct):
    """Any message: decodes only the `request_id`, so that it can be read from an invalid message."""

    request_id: RequestId | None = None


class Progress(Struct, tag="progress", kw_only=True, omit_defaults=True):
    job_id: str
    progress: int
    """Percent done."""
    stage: Stage
    warnings: list[TextWarning] = field(default_factory=list)
    """Only in the first message about a generation, and only if there are any."""
    request_id: str | None = None


class Audio(Struct, tag="audio", kw_only=True, omit_defaults=True):
    """Announces the binary message that follows: the next bytes of the audio file."""

    job_id: str
    size: int
    """Bytes of audio in the binary message that follows."""
    request_id: str | None = None


class Timestamps(Struct, tag="timestamps", kw_only=True, omit_defaults=True):
    """When the parts of a segment are said; it follows the segment's audio."""

    job_id: str
    timestamps: Sequence[Timestamp]
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
    param: str | None = None
    limit: float | None = None
    job_id: str | None = None
    request_id: str | None = None


Outgoing = Progress | Audio | Timestamps | Complete | Cancelled | Error

encode = msgspec.json.Encoder().encode


def decode(text: str) -> Generate | Dialogue | Cancel:
    """Decode a client's message.

    Raises BadRequest if it is not JSON, Invalid for a wrong field, and PayloadTooLarge above MAX_MESSAGE.
    """
    if len(text.encode()) > MAX_MESSAGE:
        raise PayloadTooLarge(
            f"The message is too large: the limit is {MAX_MESSAGE:,} bytes", limit=MAX_MESSAGE
        )
    message: Generate | Dialogue | Cancel = json_body.decode(text, Generate | Dialogue | Cancel)
    return message


def request_id_of(text: str) -> str | None:
    """Return the `request_id` of an invalid message, None if it cannot be read."""
    if len(text.encode()) > MAX_MESSAGE:
        return None
    try:
        named: Named = json_body.decode(text, Named)
    except ServerError:
        return None
    return named.request_id
