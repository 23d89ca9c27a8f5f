"""Parts of a text that are not meant to be heard or seen: thoughts of a language model, scripts, comments."""

import re

from dia_server.text.clean.markers import PRIVATE

_THOUGHTS = ("think", "thinking", "thought", "reasoning")
_SCRIPTS = ("script", "style")
_ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff\u00ad]+")


def without_hidden(text: str) -> str:
    """Return `text` without `<think>...</think>` and the like, scripts, comments and private-use characters.

    A thought that is not closed extends to the end of the text; one that is not opened, as some models write
    it, from the beginning.
    """
    text = _ZERO_WIDTH.sub("", PRIVATE.sub("", text))
    if "<" not in text:
        return text
    for name in _THOUGHTS:
        text = _without(text, f"<{name}>", f"</{name}>", to_end=True)
        text = text.rpartition(f"</{name}>")[2]
    for name in _SCRIPTS:
        text = _without(text, f"<{name}", f"</{name}>")
    return _without(text, "<!--", "-->")


def _without(text: str, opening: str, closing: str, *, to_end: bool = False) -> str:
    """Return `text` without all parts from `opening` to the next `closing`.

    A part without `closing` stays, unless `to_end` is set. Case is ignored.
    """
    folded = text.lower() if len(text.lower()) == len(text) else text
    parts, at = [], 0
    while (start := folded.find(opening, at)) >= 0:
        end = folded.find(closing, start + len(opening))
        if end < 0:
            if to_end:
                parts.append(text[at:start])
                return " ".join(parts)
            break
        parts.append(text[at:start])
        at = end + len(closing)
    return " ".join([*parts, text[at:]]) if parts else text
