"""Cuts the text of a segment into the words that are said, each with its turn and its sentence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dia_server.text import split
from dia_server.text.speakers import TAG, is_pronounceable
from dia_server.vocabulary import SOUND, SOUND_PATTERN

TOKEN = re.compile(rf"{SOUND_PATTERN}|(?:(?!{SOUND_PATTERN})\S)+", re.IGNORECASE)
"""A non-verbal sound such as "(clears throat)", or a run of other characters without spaces."""


@dataclass(frozen=True, slots=True)
class SaidWord:
    """A word, or a non-verbal sound such as "(laughs)"."""

    text: str
    """The word, with the punctuation beside it: "Hello," or "course -"."""
    speaker: str
    turn: int
    """Number of its turn in the segment; the first is 0."""
    sentence: int
    """Number of its sentence in the segment; the first is 0."""
    end: int
    """Index in the segment's text after its last character that is pronounced."""
    is_sound: bool


def said_words(text: str, *, sounds: bool) -> list[SaidWord]:
    """Split tagged `text` at spaces.

    A part without a pronounced character, such as "-", belongs to the word beside it.
    Non-verbal sounds are words of their own if `sounds`, else they are left out.
    """
    if not sounds:
        text = SOUND.sub(lambda sound: " " * len(sound[0]), text)  # of the same length: positions stay
    words: list[SaidWord] = []
    tags = [*TAG.finditer(text)]
    sentence = 0
    for turn, (tag, end) in enumerate(
        zip(tags, [*(tag.start() for tag in tags[1:]), len(text)], strict=True)
    ):
        start = tag.end()
        for part in split.sentences(text[start:end]):
            for said, stop in _tokens(text, start, start + len(part)):
                is_sound = bool(SOUND.match(said))
                words.append(SaidWord(said, tag[1].upper(), turn, sentence, stop, is_sound))
            start, sentence = start + len(part), sentence + 1
    return words


def _tokens(text: str, start: int, end: int) -> Iterator[tuple[str, int]]:
    """Yield the words in `text[start:end]`, each with the index after its last pronounced character."""
    first: int | None = None  # index of the first character of the word, or of the punctuation before it
    pronounced = last = 0
    for token in TOKEN.finditer(text, start, end):
        if not is_pronounceable(token[0]):
            last = token.end()
            first = token.start() if first is None else first
            continue
        if pronounced:
            assert first is not None
            yield text[first:last], pronounced
            first = None
        first = token.start() if first is None else first
        pronounced = last = token.end()
    if pronounced:
        assert first is not None
        yield text[first:last], pronounced
