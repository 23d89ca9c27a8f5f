"""OpenAI's server-sent events of speech.

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
    """Base64 of the file's next bytes."""


class Usage(Struct):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class Done(Struct, tag_field="type", tag="speech.audio.done"):
    usage: Usage
    retries: int
    """How often a segment was made again; OpenAI's clients pass over this and the next."""
    faults: list[str]
    """What is still wrong with it."""


async def events(streamed: Streamed, characters: int) -> AsyncIterator[bytes]:
    """The audio as events; input tokens are the text's characters, output tokens decoder steps."""
    async with aclosing(streamed):
        async for audio in streamed:
            if audio:
                yield _event(Delta(b64encode(audio).decode()))
    meter = streamed.meter
    usage = Usage(characters, meter.tokens, characters + meter.tokens)
    yield _event(Done(usage, meter.retries, sorted(meter.faults)))


def _event(data: Struct) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
