"""Respells words: Dia has no phonemes, so another spelling is the only way to correct a pronunciation."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dia_server.text.pauses import PAUSE
from dia_server.text.speakers import CAST_TAG, called
from dia_server.vocabulary import SOUND_PATTERN

APOSTROPHES = "'\u2019"
LETTER = r"[^\W_][\u0300-\u036f]*"
"""A letter or digit with its combining accents."""
PART = rf"(?:{LETTER})+(?:[{APOSTROPHES}](?:{LETTER})+)*"
WORD = rf"{PART}(?:-{PART})*"
"""Letters and digits of any script, with apostrophes and hyphens inside."""
TOKEN = re.compile(
    rf"(?P<tag>{CAST_TAG.pattern})|{PAUSE.pattern}|{SOUND_PATTERN}|(?P<word>{WORD})", re.IGNORECASE
)
POSSESSIVE = re.compile(f"(.+)([{APOSTROPHES}]s)", re.IGNORECASE)

Table = Mapping[str, str]
"""Respelling of each word. A word in lower case stands for the word in any case, another one for itself."""


@dataclass(frozen=True, slots=True)
class Respelling:
    word: str
    """Word as the text had it."""
    respelling: str
    """What is said in its place."""


@dataclass(frozen=True, slots=True)
class Respelled:
    text: str
    applied: tuple[Respelling, ...] = ()
    """The replaced words, each once, in the order in which they first stand in the text."""


def respell(text: str, tables: Mapping[str, Sequence[Table]], first: str) -> Respelled:
    """Replace the whole words of `text` that have a respelling; tags, pauses and sounds stay.

    `tables` has tables for what each tag of the text calls, and for `first`, which says the text before the
    first tag; of several tables, the first one that has a word wins. Of a word with hyphens, its parts are
    looked up if the tables lack the whole; of "Ann's", "Ann". What is put in is not respelled again. Takes
    time linear in the length of `text`.
    """
    speaker = first
    applied: dict[Respelling, None] = {}

    def said(token: re.Match[str]) -> str:
        nonlocal speaker
        if token["tag"]:
            (speaker,) = called(token[0])
        if not token["word"]:
            return token[0]
        return _said(token[0], tables[speaker], applied)

    return Respelled(TOKEN.sub(said, text), tuple(applied))


def plain(word: str) -> str:
    """Return `word` as tables have it: composed, with straight apostrophes."""
    return unicodedata.normalize("NFC", word).replace("\u2019", "'")


def _said(word: str, tables: Sequence[Table], applied: dict[Respelling, None]) -> str:
    found = _look_up(word, tables, applied)
    return found or "-".join(_said_part(part, tables, applied) for part in word.split("-"))


def _said_part(part: str, tables: Sequence[Table], applied: dict[Respelling, None]) -> str:
    if found := _look_up(part, tables, applied):
        return found
    if (owner := POSSESSIVE.fullmatch(part)) and (found := _look_up(owner[1], tables, applied)):
        return found + owner[2]
    return part


def _look_up(word: str, tables: Sequence[Table], applied: dict[Respelling, None]) -> str | None:
    key = plain(word)
    for table in tables:
        if found := table.get(key) or table.get(key.lower()):
            if key[0].isupper() and found == found.lower():
                found = found[0].upper() + found[1:]
            applied[Respelling(word, found)] = None
            return found
    return None
