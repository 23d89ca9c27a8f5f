"""Limits of one segment: bytes of text for the model's encoder, columns of codec frames for its decoder."""

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from dia_server.errors import Invalid
from dia_server.text.speakers import TAG
from dia_server.units import FRAME_RATE

MAX_BYTES = 1024
"""Maximum bytes of text for Dia's encoder, including the voice prompt's transcript."""
MAX_COLUMNS = 3072
"""Maximum columns of Dia's decoder: the frames of the voice prompt, the frames of the speech, and DELAY.
`DIA_MAX_COLUMNS` may lower it."""
DELAY = 16
"""Decoder columns beyond the number of frames: one for EOS, and 15 by which Dia delays the last codebook."""

LONGEST_S = 20.0
"""Maximum seconds of speech in a segment. Dia speaks faster and faster in longer ones."""
CONFIDENCE = 0.8
"""Share of the decoder columns after the voice prompt that the estimated speech may fill. The rest is a
reserve for slow speech."""
FEWEST_S, FEWEST_BYTES = 3.0, 64
"""Minimum seconds of speech and bytes of text for which a voice prompt must leave room."""

CHARACTERS_PER_S = 15.0
"""Latin letters that Dia speaks per second."""
_REPEATED = re.compile(r"([^\w\s])\1+")
"""Run of the same symbol, such as dashes or emoji: its speaking time is that of one symbol."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one segment."""

    max_bytes: int
    """Maximum bytes of text, including the speaker tags and the ending (see `PlannedUtterance`)."""
    max_s: float
    """Maximum estimated seconds of speech."""
    max_columns: int
    """Maximum decoder columns: frames plus DELAY."""

    def within(self, other: "Budget") -> "Budget":
        """Return a budget in which each limit is the smaller one of this budget and `other`."""
        return Budget(
            min(self.max_bytes, other.max_bytes),
            min(self.max_s, other.max_s),
            min(self.max_columns, other.max_columns),
        )


def remaining_budget(transcript_bytes: int, frames: int, max_columns: int = MAX_COLUMNS) -> Budget:
    """Return the limits of a segment that follows a voice prompt of `frames` codec frames.

    `transcript_bytes` is the encoded length of the prompt's transcript. Both are 0 without a prompt.
    `max_columns` is the number of decoder columns of a slot. Raises Invalid if the prompt leaves room for
    less than FEWEST_S of speech or FEWEST_BYTES of text.
    """
    left = _left(transcript_bytes, frames, max_columns)
    if not leaves_room(transcript_bytes, frames, max_columns):
        raise Invalid(
            f"The voice's prompt leaves no room for speech: it lasts {frames / FRAME_RATE:.1f} of "
            f"{max_columns / FRAME_RATE:.1f} s (DIA_MAX_COLUMNS) and its transcript takes {transcript_bytes} "
            f"of {MAX_BYTES} bytes; 5 to 10 s are best",
            param="voice_id",
        )
    return left


def leaves_room(transcript_bytes: int, frames: int, max_columns: int = MAX_COLUMNS) -> bool:
    """Return whether such a voice prompt leaves room for FEWEST_S of speech and FEWEST_BYTES of text."""
    left = _left(transcript_bytes, frames, max_columns)
    return left.max_s >= FEWEST_S and left.max_bytes >= FEWEST_BYTES


def _left(transcript_bytes: int, frames: int, max_columns: int) -> Budget:
    columns_left = max_columns - frames
    return Budget(
        MAX_BYTES - (transcript_bytes + 1 if transcript_bytes else 0),  # the prompt's transcript and a space
        min(LONGEST_S, CONFIDENCE * (columns_left - DELAY) / FRAME_RATE),
        columns_left,
    )


def encoded_length(text: str) -> int:
    """Return the bytes of `text` for Dia's encoder: UTF-8, with each speaker tag as one byte."""
    return len(TAG.sub("#", text).encode())


def speaking_time(text: str) -> float:
    """Estimate the seconds of speech in `text` at CHARACTERS_PER_S; `text` must have no tags."""
    return sum(map(_weight, _REPEATED.sub(r"\1", text))) / CHARACTERS_PER_S


def columns(seconds: float) -> int:
    """Return the decoder columns that `seconds` of speech take, including DELAY."""
    return math.ceil(seconds * FRAME_RATE) + DELAY


@lru_cache(4096)
def _weight(character: str) -> int:
    """Return how many Latin letters take as long to say as `character`."""
    if "A" <= character <= "z" or character in " .,'\"!?-":
        return 1
    kind = unicodedata.category(character)
    if kind[0] in "MC" or kind == "Sk":
        return 0  # a combining mark, a modifier or an invisible character
    if kind[0] == "N":
        return 4  # a digit is read as a word
    if kind[0] == "S":
        return 6  # a currency sign or an emoji is read as one or two words
    return 3 if unicodedata.east_asian_width(character) in "WF" else 1  # 3 for a CJK character, 1 for another
