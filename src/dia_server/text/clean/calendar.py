"""Dates and times of day, in words."""

import re

from dia_server.text.clean import numbers
from dia_server.text.clean.rules import Rule, apply
from dia_server.text.clean.tables import MONTHS

_DIGIT = re.compile("[0-9]")
_SHORT = {month[:3]: month for month in MONTHS} | {"Sept": "September"}
_MONTH = "|".join((*MONTHS, *(f"{short}\\b\\.?" for short in _SHORT if short not in MONTHS)))
_DAY = r"(?P<day>[0-2]?[0-9]|3[01])"
_TH = "(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>[12][0-9]{3})"
_HALF = r"(?P<half>[ap]\.m\.|[AP]\.M\.|[ap]m(?!\w)|[AP]M(?!\w))"
_CLOCK = r"(?P<hour>[01]?[0-9]|2[0-4]):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9])(?:\.[0-9]{1,9})?)?"
_NOT_INSIDE = r"(?<![\w.,:/-])"
_ZONE = r"(?:Z|(?P<offset>[+-][0-9]{2}:?[0-9]{2}))?"


def say_dates_and_times(text: str) -> str:
    """Return `text` with its dates and times in words; 3/4/2024 is March fourth, as in America."""
    return apply(_RULES, text) if _DIGIT.search(text) else text


def _numeric_date(match: re.Match[str]) -> str:
    month, day, year = (int(match[name]) for name in ("month", "day", "year"))
    if month > 12 >= day:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    year += 0 if year > 99 else 2000 if year < 50 else 1900
    return f"{MONTHS[month - 1]} {numbers.ordinal(day)}, {numbers.year(year)}"


def _stamp(match: re.Match[str]) -> str:
    date = _numeric_date(match)
    return f"{date}, {_clock(match)}" if match["hour"] else date


def _month_first(match: re.Match[str]) -> str:
    if not int(match["day"]):
        return match[0]
    year = f", {numbers.year(int(match['year']))}" if match["year"] else ""
    to = f" to {numbers.ordinal(int(match['to']))}" if match["to"] else ""
    return f"{_month(match)} {numbers.ordinal(int(match['day']))}{to}{year}"


def _day_first(match: re.Match[str]) -> str:
    if not int(match["day"]):
        return match[0]
    year = f" {numbers.year(int(match['year']))}" if match["year"] else ""
    return f"{match['the'] or 'the '}{numbers.ordinal(int(match['day']))} of {_month(match)}{year}"


def _month_and_year(match: re.Match[str]) -> str:
    return f"{_month(match)} {numbers.year(int(match['year']))}"


def _month(match: re.Match[str]) -> str:
    name = match["name"].rstrip(".")
    return _SHORT.get(name, name)


def _clock(match: re.Match[str]) -> str:
    """Say a time of day: "three thirty PM", "nine oh five", "three o'clock"."""
    hour, minute, second = int(match["hour"]), int(match["minute"]), match["second"]
    half = match.groupdict().get("half")
    said = numbers.cardinal(hour)
    if second and int(second):
        return f"{said} {_minute(minute)} and {numbers.cardinal(int(second))} seconds{_half(match)}"
    if minute:
        return f"{said} {_minute(minute)}{_half(match)}"
    if half:
        return said + _half(match)
    return f"{said} o'clock" if 1 <= hour <= 12 else f"{said} hundred"


def _minute(minute: int) -> str:
    return (
        "o'clock"
        if not minute
        else f"oh {numbers.cardinal(minute)}"
        if minute < 10
        else numbers.cardinal(minute)
    )


def _half(match: re.Match[str]) -> str:
    """Return " AM" or " PM"; a full stop stays if it also ends the sentence."""
    half = match.groupdict().get("half")
    if not half:
        return ""
    ends = half.endswith(".") and _ENDS_SENTENCE.match(match.string, match.end())
    return f" {half.replace('.', '').upper()}{'.' if ends else ''}"


def _hour(match: re.Match[str]) -> str:
    return numbers.cardinal(int(match["hour"])) + _half(match)


_ENDS_SENTENCE = re.compile(r"\s{0,3}(?:$|\s[\"“(]?[A-Z])")
_RULES: tuple[Rule, ...] = (
    (re.compile(r"(?<=:[0-5][0-9])\s?-\s?(?=[0-9]{1,2}:[0-5][0-9])"), lambda _: " to "),
    (re.compile(r"(?<=[0-9][ap]m)\s?-\s?(?=[0-9])"), lambda _: " to "),
    (re.compile(r"(?<![\w-])([0-9]{1,2})-(?=[0-9]{1,2}\s?[ap]m\b)"), lambda match: f"{match[1]} to "),
    (
        re.compile(
            rf"{_NOT_INSIDE}{_YEAR}-(?P<month>[01][0-9])-(?P<day>[0-3][0-9])(?:[T ]{_CLOCK}{_ZONE})?(?![\w-])"
        ),
        _stamp,
    ),
    (
        re.compile(
            rf"{_NOT_INSIDE}(?P<month>[0-3]?[0-9])/(?P<day>[0-3]?[0-9])/(?P<year>[12][0-9]{{3}}|[0-9]{{2}})(?![\w/])"
        ),
        _numeric_date,
    ),
    (
        re.compile(rf"{_NOT_INSIDE}(?P<day>[0-3]?[0-9])\.(?P<month>[01]?[0-9])\.{_YEAR}(?!\w)"),
        _numeric_date,
    ),
    (
        re.compile(
            rf"\b(?P<name>{_MONTH}) {_DAY}{_TH}(?:\s?-\s?(?P<to>[0-2]?[0-9]|3[01]){_TH})?"
            rf"(?:,? {_YEAR})?(?![\w:%]|[.,/-][0-9])"
        ),
        _month_first,
    ),
    (
        re.compile(
            rf"{_NOT_INSIDE}(?P<the>\bthe )?{_DAY}{_TH}(?: of)? (?P<name>{_MONTH})(?:,? {_YEAR})?(?!\w)"
        ),
        _day_first,
    ),
    (re.compile(rf"\b(?P<name>{_MONTH}),? {_YEAR}(?!\w)"), _month_and_year),
    (re.compile(rf"{_NOT_INSIDE}{_CLOCK}(?:\s?{_HALF})?(?![\w:])"), _clock),
    (re.compile(rf"{_NOT_INSIDE}(?P<hour>1[0-2]|0?[1-9])\s?{_HALF}"), _hour),
)
