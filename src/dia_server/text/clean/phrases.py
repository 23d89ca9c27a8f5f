"""Abbreviations, Roman numerals and signs beside words, as they are said."""

import re
from collections.abc import Callable, Mapping

from dia_server.text.clean import numbers
from dia_server.text.clean.amounts import NUMBER
from dia_server.text.clean.rules import Rule, any_of, apply
from dia_server.text.clean.tables import FINAL, INNER, REFERENCES, ROMAN_NAMES, ROMAN_PARTS, STREETS, TITLES

_ROMAN = r"(?P<roman>(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))"
_ALONE = r"(?=$|[,.;:!?)\"]|'s| of\b| was\b| and\b| ended\b| began\b| is\b)"
"""What follows a numeral "I", which otherwise is the speaker."""
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


def say_phrases(text: str) -> str:
    """Return `text` with its abbreviations and Roman numerals in words."""
    return apply(_RULES, text)


def _from(table: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda match: table[match[1]]


def _final(match: re.Match[str]) -> str:
    """Return the words of an abbreviation, with a full stop if it ends the sentence."""
    ends = _ENDS_SENTENCE.match(match.string, match.end()) is not None
    return FINAL[match[1]] + ("." if ends else "")


def _roman_value(numeral: str) -> int:
    values = [_VALUES[letter] for letter in numeral]
    following = [*values[1:], 0]
    return sum(-one if one < after else one for one, after in zip(values, following, strict=True))


def _ruler(match: re.Match[str]) -> str:
    if not match["roman"]:
        return match[0]
    return f"{match[1]} the {numbers.ordinal(_roman_value(match['roman'])).capitalize()}"


def _part(match: re.Match[str]) -> str:
    if not match["roman"]:
        return match[0]
    said = numbers.cardinal(_roman_value(match["roman"]))
    return f"{match[1]} {said.capitalize() if match[1] in ('War', 'Bowl', 'Fantasy') else said}"


_ENDS_SENTENCE = re.compile(r"[\"')]{0,2}(?:$|\s{1,3}[\"'(]?[A-Z])")
_RULES: tuple[Rule, ...] = (
    (re.compile(rf"\b({'|'.join(ROMAN_NAMES)}) (?!I(?!\w)){_ROMAN}(?![\w-])"), _ruler),
    (re.compile(rf"\b({'|'.join(ROMAN_NAMES)}) (?P<roman>I){_ALONE}"), _ruler),
    (re.compile(rf"\b({'|'.join(ROMAN_PARTS)}) (?!I(?!\w)){_ROMAN}(?![\w-])"), _part),
    (re.compile(rf"\b({'|'.join(ROMAN_PARTS)}) (?P<roman>I){_ALONE}"), _part),
    (re.compile(rf"(?<=[a-z] )({any_of(STREETS)})(?=,| [a-z]|$)"), _from(STREETS)),
    (re.compile(rf"(?<![\w.])({any_of(TITLES)})(?= [A-Z])"), _from(TITLES)),
    (re.compile(rf"(?<![\w.])({any_of(REFERENCES)}) ?(?=[0-9])"), lambda match: f"{REFERENCES[match[1]]} "),
    (re.compile(r"#(?=[0-9])"), lambda _: "number "),
    (re.compile(rf"(?<![\w.])({any_of(FINAL)})(?!\w)"), _final),
    (re.compile(rf"(?<![\w.])({any_of(word for word in INNER if word[-1] != '/')})(?![\w.])"), _from(INNER)),
    (re.compile(r"(?<![\w.])(w/)(?=\s?[A-Za-z])"), lambda _: "with "),
    (re.compile(r"\b([CF])#(?!\w)"), lambda match: f"{match[1]} sharp"),
    (re.compile(r"\b([A-Z])\+\+(?!\w)"), lambda match: f"{match[1]} plus plus"),
    (re.compile(r"(?<![\w&])#(?=[A-Za-z])"), lambda _: "hashtag "),
    (re.compile(r"(?<![\w@])@(?=[A-Za-z])"), lambda _: "at "),
    (re.compile(rf"~\s?(?=[$€£]?{NUMBER})"), lambda _: "about "),
    (re.compile(r"(?<!\w)<([A-Za-z][\w -]{0,40})>"), lambda match: match[1]),
    (re.compile(r"(?<=[\w)])\s{0,2}<\s{0,2}(?=[\w$(-])|(?<!\S)<\s?(?=[0-9$])"), lambda _: " less than "),
    (re.compile(r"(?<=[\w)])\s{0,2}>\s{0,2}(?=[\w$(-])|(?<!\S)>\s?(?=[0-9$])"), lambda _: " greater than "),
    (re.compile(r"\^2(?!\w)"), lambda _: " squared"),
    (re.compile(r"\^3(?!\w)"), lambda _: " cubed"),
    (re.compile(r"\^\s?(?=[\w({-])"), lambda _: " to the power of "),
)
