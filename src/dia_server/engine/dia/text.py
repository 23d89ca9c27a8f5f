"""Dia's text encoding: UTF-8 bytes, with each speaker tag replaced by one byte."""

from dia_server.engine.types import Utterance
from dia_server.errors import Invalid, TextTooLong

TAGS = {b"[S1]": b"\x01", b"[S2]": b"\x02"}


def text_bytes(utterance: Utterance, limit: int) -> bytes:
    """Return the prompt's transcript and the utterance's text as 1 to `limit` bytes.

    Raises Invalid if the text is empty, and TextTooLong if there are more bytes; nothing is truncated.
    """
    text = utterance.text.strip()
    if not text:
        raise Invalid("The text is empty", param="text")
    if utterance.prompt is not None:
        text = f"{utterance.prompt.transcript.strip()} {text}".strip()
    encoded = text.encode()
    for tag, byte in TAGS.items():
        encoded = encoded.replace(tag, byte)
    if len(encoded) > limit:
        raise TextTooLong(
            f"The text has {len(encoded)} bytes together with the voice prompt's transcript; "
            f"the model reads {limit} at most",
            param="text",
        )
    return encoded
