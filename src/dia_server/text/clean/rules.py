"""Rules: patterns in the order in which they are tried, each with what it says."""

import re
from collections.abc import Callable, Iterable

Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]

_BEGINS_SENTENCE = re.compile(r"(?:^|[.!?][\"')]?\s|[\U000f0000-\U000ffffd]\s?)[\"'(]?$")
"""End of the text before the first word of a sentence."""


def any_of(words: Iterable[str]) -> str:
    """Return a pattern that matches one of `words`, the longest that fits."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def apply(rules: tuple[Rule, ...], text: str) -> str:
    """Return `text` with each match of each rule replaced by what the rule says.

    What replaces a number, a sign or a capitalized word at the beginning of a sentence gets a capital letter:
    the planner cuts before one.
    """
    for pattern, say in rules:
        text = pattern.sub(lambda match, say=say: _capitalized(match, say(match)), text)  # type: ignore[misc]
    return text


def _capitalized(match: re.Match[str], said: str) -> str:
    if match[0][:1].islower() or not said[:1].islower():
        return said
    before = match.string[max(0, match.start() - 4) : match.start()]
    return said[0].upper() + said[1:] if _BEGINS_SENTENCE.search(before) else said
