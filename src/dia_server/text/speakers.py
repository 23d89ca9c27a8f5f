"""Turns a client's text into tagged text for the model, and tagged text into speaker turns."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dia_server.text.pauses import PAUSE

Speaker = Literal["S1", "S2"]
"""Speakers that the model knows."""
TAGS = ("S1", "S2")
"""The same, for iteration."""
Speakers = Mapping[str, str]
"""Speaker of the text that each tag of a segment stands for, and each tag of the segment's voice prompt."""

TAG = re.compile(r"\[(s[12])\]", re.IGNORECASE)
"""Tag of a speaker that the model knows, as in transcripts and segments."""
VOICE_CHARACTERS = r"[\w.\- ]{1,66}"
CAST_TAG = re.compile(rf"\[(s[1-9]|voice:{VOICE_CHARACTERS})\]", re.IGNORECASE)
"""Tag that says who speaks next in a client's text: a speaker, or a voice by its id."""
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]+")
"""Run of control characters, surrogates and BOMs: they have no sound, and NUL would end a C string."""

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}
"""Unicode categories of invisible characters."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Text of one speaker up to the next change of speaker: stripped, never empty."""

    speaker: str
    text: str


def one_line(text: str) -> str:
    """Return `text` as one line without unspeakable characters."""
    return " ".join(UNSPEAKABLE.sub(" ", text).split())


def clean_transcript(text: str) -> str:
    """Return `text` as one line without unspeakable characters; "" if it has no visible text besides tags."""
    text = one_line(text)
    return text if has_visible_text(TAG.sub("", text)) else ""


def tag(text: str, speaker: Speaker, tags: re.Pattern[str] = TAG) -> str:
    """Return `text` as one line that begins with one of `tags`, TAG or CAST_TAG.

    Text before the first tag is given to `speaker`. Speakers are in upper case. Removes unspeakable
    characters. Returns "" if the text has nothing visible besides tags and pauses.
    """
    text = one_line(text)
    text = tags.sub(lambda match: f"[{_called(match[1])}]", text)
    if not has_visible_text(PAUSE.sub("", tags.sub("", text))):
        return ""
    return text if tags.match(text) else f"[{speaker}] {text}"


def turns(text: str, speaker: str) -> list[Turn]:
    """Split text with the model's tags into turns; text before the first tag belongs to `speaker`.

    A tag starts no turn if it repeats the speaker of the turn before it, or if no text follows it.
    """
    return _turns(text, speaker, TAG, {})


def cast_turns(text: str, speaker: str, names: Mapping[str, str]) -> list[Turn]:
    """Split text with CAST_TAGs as `turns` does; `names` maps what tags call to speakers.

    What is missing in `names` is its own speaker: "S3", or "voice:luna".
    """
    return _turns(text, speaker, CAST_TAG, names)


def last_speaker(text: str, speaker: str, names: Mapping[str, str]) -> str:
    """Return the speaker at the end of text with CAST_TAGs; `speaker` if it has none."""
    tags = CAST_TAG.findall(text)
    return names.get(called := _called(tags[-1]), called) if tags else speaker


def called(text: str) -> list[str]:
    """Return what the CAST_TAGs of `text` call, each once, in order: "S3", or "voice:luna"."""
    return [*dict.fromkeys(_called(tag) for tag in CAST_TAG.findall(text))]


def heard(text: str, names: Mapping[str, str]) -> list[str]:
    """Return the speakers of tagged `text` who say something, each once, in order."""
    passages = PAUSE.sub(" ", text)
    return [*dict.fromkeys(turn.speaker for turn in cast_turns(passages, "S1", names))]


def recast(speakers: Iterable[str]) -> Speakers | None:
    """Return the speaker for each tag that the model knows; None if there are more than two `speakers`.

    S1 and S2 keep their tags; others get what is left, in the order of their numbers.
    """
    ordered = sorted(speakers, key=lambda speaker: (len(speaker), speaker))
    if len(ordered) > 2:
        return None
    others = [speaker for speaker in ordered if speaker not in TAGS]
    cast: dict[str, str] = {}
    for tag in TAGS:
        if tag in ordered:
            cast[tag] = tag
        elif others:
            cast[tag] = others.pop(0)
    return cast


def is_pronounceable(text: str) -> bool:
    """Return whether tagged `text` contains a letter, a number or a symbol, such as an emoji."""
    return any(unicodedata.category(character)[0] in "LNS" for character in CAST_TAG.sub("", text))


def has_visible_text(text: str) -> bool:
    """Return whether `text` contains a visible character."""
    return any(unicodedata.category(character) not in UNSEEN for character in text)


def _turns(text: str, speaker: str, tags: re.Pattern[str], names: Mapping[str, str]) -> list[Turn]:
    found: list[Turn] = []
    before, *tagged = tags.split(text)
    for name, part in [("", before), *zip(tagged[::2], tagged[1::2], strict=True)]:
        if name:
            speaker = names.get(called := _called(name), called)
        if not (words := part.strip()):
            continue
        if found and found[-1].speaker == speaker:
            words = f"{found.pop().text} {words}"
        found.append(Turn(speaker, words))
    return found


def _called(name: str) -> str:
    """Return the content of a tag in one way of writing: "S3", or "voice:luna"."""
    kind, _, voice = name.partition(":")
    return f"voice:{voice.strip()}" if voice else kind.upper()
