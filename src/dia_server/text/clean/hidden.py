"""Parts of a text that are not meant to be heard or seen: thoughts of a language model, scripts, comments."""

import re
from collections.abc import Sequence

from dia_server.text.clean.markers import PRIVATE
from dia_server.text.speakers import CAST_TAG

_THOUGHTS = ("think", "thinking", "thought", "reasoning")
_SCRIPTS = ("script", "style")
_TAGGED_LINE = re.compile(rf"^[ \t]*(?={CAST_TAG.pattern})", re.IGNORECASE | re.MULTILINE)
"""Beginning of a line on which somebody begins to speak."""
_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,}(?=[ \t]*\w|[ \t]*$))(.*)")
"""Line that opens or closes a code block: its mark, and its language."""
_ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff\u00ad]+")


def without_hidden(text: str) -> str:
    """Return `text` without `<think>...</think>` and the like, scripts, comments and private-use characters.

    A thought that is not closed extends to the next line that begins with a tag of a speaker or a voice, else
    to the end of the text; one that is not opened, as some models write it, from the beginning.
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


def with_closed_fences(text: str) -> str:
    """Return `text` with each open code block closed before the next line that begins with a tag.

    So it leaves what the other speakers say. Code blocks that are closed stay, whatever is in them.
    """
    if not ("```" in text or "~~~" in text) or not _TAGGED_LINE.search(text):
        return text
    lines = text.split("\n")
    longest = _longest_closings(lines)
    said: list[str] = []
    opened = ""
    for line, closings in zip(lines, longest, strict=True):
        if opened and len(opened) > closings[opened[0]] and _TAGGED_LINE.match(line):
            said.append(opened)
            opened = ""
        fence = _FENCE.fullmatch(line)
        if fence and not opened:
            opened = fence[1]
        elif fence and fence[1].startswith(opened) and not fence[2].strip():
            opened = ""
        said.append(line)
    return "\n".join(said)


def _longest_closings(lines: Sequence[str]) -> list[dict[str, int]]:
    """Return the length of the longest mark that closes a code block at or after each line, by its sign."""
    longest, found = {"`": 0, "~": 0}, []
    for line in reversed(lines):
        if (fence := _FENCE.fullmatch(line)) and not fence[2].strip():
            longest = longest | {fence[1][0]: max(longest[fence[1][0]], len(fence[1]))}
        found.append(longest)
    return found[::-1]


def _without(text: str, opening: str, closing: str, *, to_end: bool = False) -> str:
    """Return `text` without all parts from `opening` to the next `closing`.

    A part without `closing` stays, unless `to_end` is set: it extends to the next tagged line, else to the
    end. Case is ignored.
    """
    folded = text.lower() if len(text.lower()) == len(text) else text
    parts, at, last = [], 0, folded.rfind(closing)
    while (start := folded.find(opening, at)) >= 0:
        if start + len(opening) <= last:
            end = folded.find(closing, start + len(opening)) + len(closing)
        elif to_end:
            line = _TAGGED_LINE.search(text, start)
            end = line.start() if line else len(text)
        else:
            break
        parts.append(text[at:start])
        at = end
    return " ".join([*parts, text[at:]]) if parts else text
