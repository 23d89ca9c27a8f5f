"""Non-verbal sounds, speaker tags and pauses: spans that the planner and the engines know."""

# ruff: noqa: RUF001 - quotes and signs of typography are meant

import re

from dia_server.text.clean.markers import Markers
from dia_server.text.pauses import PAUSE
from dia_server.text.speakers import VOICE_CHARACTERS
from dia_server.vocabulary import SOUND, SOUND_WORDS, sound_name

_TAG = re.compile(rf"\[(?:S\d|voice:{VOICE_CHARACTERS})\]", re.IGNORECASE)
"""Tag of a speaker or a voice."""
_BARE_PAUSE = re.compile(r"\[pause:\s?([0-9]{1,6}(?:\.[0-9]{1,6})?)\]", re.IGNORECASE)
"""Pause without a unit, which is seconds."""
_BRACKETS = re.compile(rf"\[\s?({SOUND_WORDS})\s?\]|<({SOUND_WORDS})\s?/?>", re.IGNORECASE)
_ACTION = re.compile(
    rf"(?P<marks>\*{{1,3}}|(?<!\w)_{{1,2}})\s?({SOUND_WORDS})[.!]?\s?(?P=marks)", re.IGNORECASE
)
"""A sound between asterisks or underscores, as in role-play: "*laughs*"."""
_BEGINS = re.compile(r"(?:^|[.!?…,;:\"'“”‘’)\]*\n—–-])\s{0,3}$")
"""End of the text before an action that interrupts no sentence."""


def keep_marks(text: str, markers: Markers) -> str:
    """Return `text` with a marker for each speaker tag, voice tag, pause and sound.

    "[laughs]", "<laugh>" and "*laughs*" become "(laughs)", by its usual name. An action is a sound if its
    verb ends in "s", or if it interrupts no sentence: in "I love *singing*", the word is only emphasized.
    """

    def action(match: re.Match[str]) -> str:
        words = match[2]
        before = match.string[max(0, match.start() - 4) : match.start()]
        if words.lower().endswith("s") or " " in words or _BEGINS.search(before):
            return markers.keep(f"({sound_name(words)})")
        return match[0]

    def bracket(match: re.Match[str]) -> str:
        return markers.keep(f"({sound_name(match[1] or match[2])})")

    def same(match: re.Match[str]) -> str:
        return markers.keep(match[0])

    text = PAUSE.sub(same, _TAG.sub(same, text))
    text = _BARE_PAUSE.sub(lambda match: markers.keep(f"[pause:{match[1]}s]"), text)
    return _ACTION.sub(action, _BRACKETS.sub(bracket, SOUND.sub(same, text)))
