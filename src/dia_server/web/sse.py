"""Server-sent events of speech in OpenAI's format.

Hand-written because OpenAI's events are bare `data:` lines, without the names and ids that Litestar's
ServerSentEvent is for.
"""

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import msgspec
from msgspec import UNSET, Struct, UnsetType

from dia_server.services.speech.request import Streamed
from dia_server.services.speech.timestamps import Timestamp
from dia_server.web.schemas import TextWarning, text_warnings

MEDIA_TYPE = "text/event-stream"


class Delta(Struct, tag_field="type", tag="speech.audio.delta"):
    audio: str
    """Base64 of the next bytes of the audio file."""
    warnings: list[TextWarning] | UnsetType = UNSET
    """Only in the first event, and only if there are any; OpenAI's clients ignore them."""


class Timestamps(Struct, tag_field="type", tag="speech.audio.timestamps"):
    timestamps: Sequence[Timestamp]
    """Those of one segment, whose audio precedes them; OpenAI's clients ignore this event."""


class Usage(Struct):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class Done(Struct, tag_field="type", tag="speech.audio.done"):
    usage: Usage
    retries: int
    """Number of segments generated again; OpenAI's clients ignore this field and `faults`."""
    faults: list[str]
    """Faults that remained after all retries."""


async def events(streamed: Streamed, characters: int) -> AsyncIterator[bytes]:
    """Yield an event per chunk of audio and per segment with timestamps, and at the end one with the usage.

    The usage counts characters as input tokens and decode steps as output tokens.
    """
    warnings: list[TextWarning] | UnsetType = text_warnings(streamed.warnings) or UNSET
    async with aclosing(streamed):
        async for part in streamed.parts():
            if not isinstance(part, bytes):
                yield _event(Timestamps(part))
            elif part:
                yield _event(Delta(b64encode(part).decode(), warnings))
                warnings = UNSET
    meter = streamed.meter
    usage = Usage(characters, meter.tokens, characters + meter.tokens)
    yield _event(Done(usage, meter.retries, sorted(meter.faults)))


def _event(data: Struct) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
