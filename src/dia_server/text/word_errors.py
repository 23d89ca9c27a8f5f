"""Word error rate of a transcript against the text that should have been spoken.

Hand-written because libraries such as jiwer know neither speaker tags nor scripts without spaces.
"""

import re
import unicodedata

from dia_server.text.pauses import PAUSE
from dia_server.text.speakers import TAG
from dia_server.vocabulary import SOUND

APOSTROPHES = re.compile("['\u2019]")
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
"""Run of letters and digits, or one Chinese or Japanese character: those scripts have no spaces."""


def word_error_rate(text: str, transcript: str) -> float:
    """Return the word error rate: wrong words / words of `text`; see `count_wrong_words`.

    Returns 0 if `text` has only sounds, because Whisper transcribes sounds unpredictably.
    """
    wrong, words = count_wrong_words(text, transcript)
    return wrong / words if words else 0.0


def count_wrong_words(text: str, transcript: str) -> tuple[int, int]:
    """Return the deletions, insertions and substitutions of words together, and the words of `text`.

    Ignores case, punctuation, speaker tags, pauses and non-verbal sounds. Digits differ from number words
    ("3", "three").
    """
    expected, actual = _words(text), _words(transcript)
    return _distance(expected, actual), len(expected)


def _words(text: str) -> list[str]:
    for markup in (TAG, PAUSE, SOUND):
        text = markup.sub(" ", text)
    return WORD.findall(APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold()))


def _distance(expected: list[str], actual: list[str]) -> int:
    """Return the Levenshtein distance in words; only one row of the table is kept."""
    row = list(range(len(actual) + 1))
    for i, word in enumerate(expected, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(actual, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]
