"""Turns a client's text into tagged text for the model, and tagged text into speaker turns."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from dia_server.text.pauses import PAUSE

Speaker = Literal["S1", "S2"]

TAG = re.compile(r"\[s([12])\]", re.IGNORECASE)
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]+")
"""Run of control characters, surrogates and BOMs: they have no sound, and NUL would end a C string."""

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}
"""Unicode categories of invisible characters."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Text of one speaker up to the next change of speaker: stripped, never empty."""

    speaker: Speaker
    text: str


def clean_transcript(text: str) -> str:
    """Return `text` as one line without unspeakable characters; "" if it has no visible text besides tags."""
    text = " ".join(UNSPEAKABLE.sub(" ", text).split())
    return text if has_visible_text(TAG.sub("", text)) else ""


def tag(text: str, speaker: Speaker) -> str:
    """Return `text` as one line that begins with a speaker tag; all tags are in upper case.

    Text before the first tag is given to `speaker`. Removes unspeakable characters. Returns "" if the text
    has nothing visible besides tags and pauses.
    """
    text = " ".join(UNSPEAKABLE.sub(" ", text).split())
    text = TAG.sub(lambda match: f"[S{match[1]}]", text)
    if not has_visible_text(PAUSE.sub("", TAG.sub("", text))):
        return ""
    return text if TAG.match(text) else f"[{speaker}] {text}"


def turns(text: str, speaker: Speaker) -> list[Turn]:
    """Split tagged text into turns; text before the first tag belongs to `speaker`.

    A tag starts no turn if it repeats the speaker of the turn before it, or if no text follows it.
    """
    found: list[Turn] = []
    before, *tagged = TAG.split(text)
    for number, part in [("", before), *zip(tagged[::2], tagged[1::2], strict=True)]:
        if number:
            speaker = _speaker(number)
        if not (words := part.strip()):
            continue
        if found and found[-1].speaker == speaker:
            words = f"{found.pop().text} {words}"
        found.append(Turn(speaker, words))
    return found


def last_speaker(text: str, speaker: Speaker) -> Speaker:
    """Return the speaker at the end of tagged `text`; `speaker` if it has no tags."""
    numbers = TAG.findall(text)
    return _speaker(numbers[-1]) if numbers else speaker


def is_pronounceable(text: str) -> bool:
    """Return whether tagged `text` contains a letter, a number or a symbol, such as an emoji."""
    return any(unicodedata.category(character)[0] in "LNS" for character in TAG.sub("", text))


def has_visible_text(text: str) -> bool:
    """Return whether `text` contains a visible character."""
    return any(unicodedata.category(character) not in UNSEEN for character in text)


def _speaker(number: str) -> Speaker:
    return "S1" if number == "1" else "S2"
