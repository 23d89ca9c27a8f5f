"""How far what is heard in a recording is from what was to be said in it."""

import re
import unicodedata

from dia_server.text.pauses import PAUSE
from dia_server.text.speakers import TAG
from dia_server.vocabulary import SOUND

APOSTROPHES = re.compile("['\u2019]")
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
"""Letters and digits; in Chinese and Japanese, which have no spaces, each character counts as a word."""


def word_error_rate(text: str, transcript: str) -> float:
    """Return the words left out, put in or replaced, for each word of `text`, which may have tags.

    Case and punctuation are no matter, but digits are not the words that they are read as. It is 0 where
    `text` has no words: nobody can tell how laughter is spelt.
    """
    wanted, got = _words(text), _words(transcript)
    return _distance(wanted, got) / len(wanted) if wanted else 0.0


def _words(text: str) -> list[str]:
    for markup in (TAG, PAUSE, SOUND):
        text = markup.sub(" ", text)
    return WORD.findall(APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold()))


def _distance(wanted: list[str], got: list[str]) -> int:
    """Levenshtein's, row by row."""
    row = list(range(len(got) + 1))
    for i, word in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]
