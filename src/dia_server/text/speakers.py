"""From a client's text to the tagged text that a model speaks, and from that to who says what."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from dia_server.text.pauses import PAUSE

Speaker = Literal["S1", "S2"]

TAG = re.compile(r"\[s([12])\]", re.IGNORECASE)
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]+")
"""Control characters and halves of surrogate pairs: nothing says them, and some end a C string."""

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}


@dataclass(frozen=True, slots=True)
class Turn:
    """What a speaker says until the other one does: stripped and not empty."""

    speaker: Speaker
    text: str


def clean_transcript(text: str) -> str:
    """Return `text` as one line without what nothing says; "" where there is nothing but tags."""
    text = " ".join(UNSPEAKABLE.sub(" ", text).split())
    return text if _has_words(TAG.sub("", text)) else ""


def tag(text: str, speaker: Speaker) -> str:
    """Return `text` with speaker tags, what has none being said by `speaker`.

    Asterisks, which chat clients put around actions, go; white space is collapsed. Returns "" where
    nothing is left to say.
    """
    text = " ".join(UNSPEAKABLE.sub(" ", text.replace("*", "")).split())
    text = TAG.sub(lambda match: f"[S{match[1]}]", text)
    if not _has_words(PAUSE.sub("", TAG.sub("", text))):
        return ""
    return text if TAG.match(text) else f"[{speaker}] {text}"


def turns(text: str, speaker: Speaker) -> list[Turn]:
    """Split tagged text at its tags; what is said before the first is said by `speaker`.

    A tag that does not change the speaker is no turn, and neither is one with nothing behind it.
    """
    found: list[Turn] = []
    before, *tagged = TAG.split(text)
    for number, part in [("", before), *zip(tagged[::2], tagged[1::2], strict=True)]:
        if number:
            speaker = _speaker(number)
        if not (said := part.strip()):
            continue
        if found and found[-1].speaker == speaker:
            said = f"{found.pop().text} {said}"
        found.append(Turn(speaker, said))
    return found


def last_speaker(text: str, speaker: Speaker) -> Speaker:
    """Return who speaks at the end of tagged `text`, which `speaker` begins."""
    numbers = TAG.findall(text)
    return _speaker(numbers[-1]) if numbers else speaker


def _has_words(text: str) -> bool:
    """Whether anything in it is seen, and so may be said."""
    return any(unicodedata.category(character) not in UNSEEN for character in text)


def _speaker(number: str) -> Speaker:
    return "S1" if number == "1" else "S2"
