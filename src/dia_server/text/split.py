"""Cuts a text into sentences, clauses, words or characters.

Each function returns parts that, joined, equal the text, including its spaces. The only white space in the
text must be single spaces. The rules for sentences are hand-written: they prefer a missed cut to a wrong one,
so they do not cut after abbreviations and initials. Grapheme clusters come from the `regex` library.
"""

# ruff: noqa: RUF001 - quotes and punctuation of other scripts are meant

import re
from collections.abc import Iterable
from itertools import pairwise

import regex

CLOSERS = "\"'”’»›)\\]}」』）】》"
STOPS = ".!?…‼⁇⁈⁉؟۔।॥"
SENTENCE_END = re.compile(rf"(?<![{STOPS}])(?P<stops>[{STOPS}]+)[{CLOSERS}]*\s+|[。！？｡．]+[{CLOSERS}]*\s*")
CLAUSE_END = re.compile(
    rf"[,;:][{CLOSERS}]*\s+|[،؛，、；：][{CLOSERS}]*\s*|\s[-–]\s+|\s*[—―]+\s*|\s+(?=[(\[（])"
)
WORD = re.compile(r"\s*\S+\s*")

NEXT = re.compile(r"[\"'“‘«‹(\[{¿¡]*(.)")
LAST_WORD = re.compile(r"[^\s\-—–(\[\"'“‘«]+$")
NUMBERING = re.compile(r"(?:^|[.!?…:;]\s)\W*(?:\d{1,3}|[A-Za-z])$")
INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
"""Initials without the final dot, as in "J. Smith", "e.g. this", "the U.S. Army"."""
TITLES = re.compile(
    "adm|brig|capt|cf|cmdr|col|dr|fr|gen|gov|hon|lt|maj|messrs|mlle|mme|mr|mrs|ms|mt|prof|pres|rep|rev|sen"
    "|sgt|st|ste|vs"
)
"""Abbreviations before a name, which do not end a sentence."""
REFERENCES = re.compile("art|ch|figs?|nos?|nr|pp?|sec|vols?")
"""Words that are abbreviations only before a number: "no. 5", but "No."."""

LONGEST_CHARACTER = 14
"""Maximum code points of a grapheme cluster: enough for any emoji, and at most 56 bytes, which fit into any
budget."""
CLUSTER = regex.compile(r"\X\p{M}*+ *+")
"""Grapheme cluster, with the marks and spaces after it. UAX 29 separates some vowel signs from their letter,
as in Burmese, so marks are matched too."""
CLUSTER_PART = re.compile(rf".{{1,{LONGEST_CHARACTER}}} *", re.DOTALL)


def sentences(text: str) -> list[str]:
    """Cut after each sentence whose end is unambiguous."""
    return _cut(text, (end.end() for end in SENTENCE_END.finditer(text) if _ends_sentence(text, end)))


def clauses(text: str) -> list[str]:
    """Cut after commas, semicolons, colons and dashes, and before brackets, but not inside "1,000"."""
    return _cut(text, (end.end() for end in CLAUSE_END.finditer(text)))


def words(text: str) -> list[str]:
    """Cut before each word."""
    return WORD.findall(text)


def characters(text: str) -> list[str]:
    """Cut between grapheme clusters (UAX 29): letters with their marks, joined emoji, flags.

    A cluster longer than LONGEST_CHARACTER is cut too. A space stays with the cluster before it, because a
    space alone would be a segment without speech.
    """
    return [part for cluster in CLUSTER.findall(text) for part in CLUSTER_PART.findall(cluster)]


def _cut(text: str, ends: Iterable[int]) -> list[str]:
    cuts = [0, *(end for end in ends if 0 < end < len(text)), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


def _ends_sentence(text: str, end: re.Match[str]) -> bool:
    if not end["stops"]:
        return True
    following = NEXT.match(text, end.end())
    if following and following[1].islower():
        return False  # as in 'e.g. this' and '"Why?" she said'
    if end["stops"] != ".":
        return True
    before = text[max(0, end.start() - 40) : end.start()]
    if not (word := LAST_WORD.search(before)):
        return True
    name = word[0].lower()
    if REFERENCES.fullmatch(name):
        return not (following and following[1].isdecimal())
    is_initials = INITIALS.fullmatch(word[0]) and word[0] != "I"
    return not (TITLES.fullmatch(name) or is_initials or NUMBERING.search(before))
