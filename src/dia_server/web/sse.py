"""Server-sent events of speech in OpenAI's format.

Hand-written because OpenAI's events are bare `data:` lines, without the names and ids that Litestar's
ServerSentEvent is for.
"""

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from dia_server.services.speech.request import Streamed

MEDIA_TYPE = "text/event-stream"


class Delta(Struct, tag_field="type", tag="speech.audio.delta"):
    audio: str
    """Base64 of the next bytes of the audio file."""


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
    """Yield an event per chunk of audio, and at the end one with the usage.

    The usage counts characters as input tokens and decode steps as output tokens.
    """
    async with aclosing(streamed):
        async for audio in streamed:
            if audio:
                yield _event(Delta(b64encode(audio).decode()))
    meter = streamed.meter
    usage = Usage(characters, meter.tokens, characters + meter.tokens)
    yield _event(Done(usage, meter.retries, sorted(meter.faults)))


def _event(data: Struct) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
