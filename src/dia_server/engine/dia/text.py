"""Text as Dia reads it: UTF-8 bytes, each speaker tag folded into one byte."""

from dia_server.engine.types import Utterance
from dia_server.errors import Invalid, TextTooLong

TAGS = {b"[S1]": b"\x01", b"[S2]": b"\x02"}


def text_bytes(utterance: Utterance, limit: int) -> bytes:
    """The utterance's text behind its prompt's transcript, 1 to `limit` bytes.

    Raises TextTooLong rather than cutting: what is cut is not spoken, and nobody would be told.
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
