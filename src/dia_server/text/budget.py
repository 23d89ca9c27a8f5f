"""What of a text fits into one piece: bytes for the model's encoder, columns for its decoder."""

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from dia_server.errors import Invalid
from dia_server.text.speakers import TAG

MAX_BYTES = 1024
"""Of text that Dia's encoder reads, a voice prompt's transcript included."""
MAX_COLUMNS = 3072
"""Of codec frames that its decoder counts, a voice prompt's included."""
DELAY = 16
"""Columns from a frame's first code to its last."""
FRAMES_PER_S = 44_100 / 512

LONGEST_S = 20.0
"""Of one piece: beyond it Dia speaks faster and faster."""
CONFIDENCE = 0.8
"""Share of the columns that a piece may fill by its estimate, so that slower speech ends in time."""
FEWEST_S, FEWEST_BYTES = 3.0, 64
"""Less than these beside a voice prompt is no room to speak in."""

CHARACTERS_PER_S = 15.0
_REPEATED = re.compile(r"([^\w\s])\1+")
"""Rules and rows of marks or emoji: nobody says each of them."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one piece may hold."""

    max_bytes: int
    """Of its text, the tags included."""
    max_s: float
    """By estimate."""
    max_columns: int
    """Of its frames and the delay after the last."""

    def within(self, other: "Budget") -> "Budget":
        """What both allow."""
        return Budget(
            min(self.max_bytes, other.max_bytes),
            min(self.max_s, other.max_s),
            min(self.max_columns, other.max_columns),
        )


def remaining_budget(transcript_bytes: int, frames: int) -> Budget:
    """Return what is left beside a voice prompt of `frames` codec frames; both are 0 where there is none.

    Raises Invalid where that is no room to speak in.
    """
    columns_left = MAX_COLUMNS - frames
    left = Budget(
        MAX_BYTES - (transcript_bytes + 1 if transcript_bytes else 0),  # a space follows it
        min(LONGEST_S, CONFIDENCE * (columns_left - DELAY) / FRAMES_PER_S),
        columns_left,
    )
    if left.max_s < FEWEST_S or left.max_bytes < FEWEST_BYTES:
        raise Invalid(
            f"The voice's prompt leaves no room for speech: it lasts {frames / FRAMES_PER_S:.1f} s and its "
            f"transcript takes {transcript_bytes} of {MAX_BYTES} bytes; 5 to 10 s are best",
            param="voice_id",
        )
    return left


def encoded_length(text: str) -> int:
    """Bytes that Dia reads: UTF-8, where a speaker tag is one."""
    return len(TAG.sub("#", text).encode())


def speaking_time(text: str) -> float:
    """Estimate the seconds that it takes to say `text`, which holds no tags."""
    return sum(map(_weight, _REPEATED.sub(r"\1", text))) / CHARACTERS_PER_S


def columns(seconds: float) -> int:
    """Return the decoder's columns for that much speech, the delay after it included."""
    return math.ceil(seconds * FRAMES_PER_S) + DELAY


@lru_cache(4096)
def _weight(character: str) -> int:
    """How many letters take as long."""
    if "A" <= character <= "z" or character in " .,'\"!?-":
        return 1
    kind = unicodedata.category(character)
    if kind[0] in "MC" or kind == "Sk":
        return 0  # belongs to the character before, or is not seen at all
    if kind[0] == "N":
        return 4  # is a word
    if kind[0] == "S":
        return 6  # is a word or two, as currencies and emoji
    return 3 if unicodedata.east_asian_width(character) in "WF" else 1  # a syllable, or a letter
