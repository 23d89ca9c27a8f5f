"""From a client's text to the tagged text that a model speaks."""

import re
from typing import Literal

Speaker = Literal["S1", "S2"]

TAG = re.compile(r"\[s([12])\]", re.IGNORECASE)
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]+")
"""Control characters and halves of surrogate pairs: nothing says them, and some end a C string."""


def spoken(text: str) -> str:
    """Return `text` as one line without what nothing says; "" where there is nothing but tags."""
    text = " ".join(UNSPEAKABLE.sub(" ", text).split())
    return text if TAG.sub("", text).strip() else ""


def tag(text: str, speaker: Speaker) -> str:
    """Return `text` with speaker tags, what has none being said by `speaker`.

    Asterisks, which chat clients put around actions, go; white space is collapsed. Returns "" where
    nothing is left to say.
    """
    text = " ".join(UNSPEAKABLE.sub(" ", text.replace("*", "")).split())
    text = TAG.sub(lambda match: f"[S{match[1]}]", text)
    if not TAG.sub("", text).strip():
        return ""
    return text if TAG.match(text) else f"[{speaker}] {text}"
