"""Numbers and what belongs to them, in words: money, percent, units, ordinals, ranges, versions, phones."""

# ruff: noqa: RUF001 - quotes and signs of typography are meant

import re
from collections.abc import Callable

from dia_server.text.clean import numbers
from dia_server.text.clean.markers import ASTERISK, UNDERSCORE
from dia_server.text.clean.rules import Rule, any_of, apply
from dia_server.text.clean.tables import CURRENCIES, DENOMINATORS, FRACTIONS, SCALES, UNITS

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])|[0-9]++)(?:\.[0-9]++)?"
"""Number as it is written, with or without commas and a decimal part."""
_OUTSIDE = rf"(?<![\w{ASTERISK}{UNDERSCORE}])"
START = rf"{_OUTSIDE}(?<![0-9][.,])"
"""Beginning of a number: it is not inside a word or a number."""
END = rf"(?![\w{ASTERISK}{UNDERSCORE}]|[.,][0-9])"
_AMOUNT = re.compile(f"[0-9{''.join(FRACTIONS)}]|/[a-z]")
_MINUS = r"(?P<minus>(?<![\w)\]%.,'\"])-)?"
_PERIODS = {"mo": "month", "yr": "year", "wk": "week", "hr": "hour", "sec": "second", "min": "minute"}


def say_amounts(text: str) -> str:
    """Return `text` with its numbers in words."""
    return apply(_RULES, text) if _AMOUNT.search(text) else text


def _minus(match: re.Match[str]) -> str:
    return "minus " if match["minus"] else ""


def _span(match: re.Match[str], say: Callable[[str], str] = numbers.quantity) -> str:
    """Return the number of `match`, or the range "ten to twenty"."""
    return f"{say(match['number'])} to {say(match['to'])}" if match["to"] else say(match["number"])


def _address(match: re.Match[str]) -> str:
    """Say the address of a machine: "127.0.0.1:80"."""
    said = " dot ".join(numbers.digits(part) for part in match["address"].split("."))
    return f"{said} port {numbers.digits(match['port'])}" if match["port"] else said


def _version(match: re.Match[str]) -> str:
    said = " point ".join(numbers.quantity(part) for part in match["parts"].split("."))
    return f"version {said}" if match["v"] else said


def _phone(match: re.Match[str]) -> str:
    """Say a phone number digit by digit, with a comma after each group."""
    plus = "plus " if match[0].startswith("+") else ""
    return plus + ", ".join(numbers.digits(group) for group in re.findall("[0-9]+", match[0]))


def _money(match: re.Match[str]) -> str:
    one, many, cent, cents = CURRENCIES[match["currency"]]
    scale = (match["scale"] or "").strip()
    number, minus = match["number"], _minus(match)
    if match["to"] or scale:
        words = f" {SCALES.get(scale, scale)}" if scale else ""
        return f"{minus}{_span(match)}{words} {many}"
    whole, _, fraction = number.partition(".")
    if not cent or len(fraction) not in (0, 2) or len(whole) > numbers.MAX_DIGITS:
        return f"{minus}{numbers.quantity(number)} {many}"
    units = f"{numbers.quantity(whole)} {one if numbers.is_one(whole) else many}"
    if not fraction or fraction == "00":
        return minus + units
    hundredths = f"{numbers.cardinal(int(fraction))} {cent if int(fraction) == 1 else cents}"
    return minus + (hundredths if int(whole.replace(",", "")) == 0 else f"{units} and {hundredths}")


def _percent(match: re.Match[str]) -> str:
    return f"{_minus(match)}{_span(match)} percent"


def _unit(match: re.Match[str]) -> str:
    one, many = UNITS[match["unit"]]
    singular = numbers.is_one(match["number"]) and not match["to"]
    return f"{_minus(match)}{_span(match)} {one if singular else many}"


def _height(match: re.Match[str]) -> str:
    inches = f" {numbers.cardinal(int(match[2]))}" if match[2] else ""
    return f"{numbers.cardinal(int(match[1]))} foot{inches}"


def _decade(match: re.Match[str]) -> str:
    """Say "1990s", "'90s" or "in her 30s"."""
    said = numbers.number(match["decade"])
    return match["before"].strip("'") + (said[:-1] + "ies" if said.endswith("y") else said + "s")


def _ordinal(match: re.Match[str]) -> str:
    return numbers.ordinal(int(match[1].replace(",", "")))


def _by(match: re.Match[str]) -> str:
    return f"{numbers.number(match[1])} by {numbers.number(match[2])}"


def _fraction(match: re.Match[str]) -> str:
    above, below = match["above"], match["below"]
    whole = f"{numbers.quantity(match['whole'])} and " if match["whole"] else ""
    if match["stars"] or below in ("10", "20", "100"):
        return f"{whole}{numbers.number(above)} out of {numbers.number(below)}{match['stars'] or ''}"
    if (above, below) in {("24", "7"), ("9", "11")}:
        return f"{numbers.number(above)} {numbers.number(below)}"
    if below in DENOMINATORS and int(above) < int(below):
        return f"{whole}{numbers.number(above)} {DENOMINATORS[below][above != '1']}"
    return f"{whole}{numbers.number(above)} over {numbers.number(below)}"


def _sign_fraction(match: re.Match[str]) -> str:
    whole = f"{numbers.quantity(match[1])} and " if match[1] else ""
    return f"{whole}{FRACTIONS[match[2]]}"


def _scientific(match: re.Match[str]) -> str:
    sign = "minus " if match["sign"] == "-" else ""
    power = numbers.number(match["power"])
    return f"{_minus(match)}{numbers.number(match['number'])} times ten to the power of {sign}{power}"


def _scaled(match: re.Match[str]) -> str:
    return f"{_minus(match)}{numbers.quantity(match['number'])} {SCALES[match['scale']]}"


def _range(match: re.Match[str]) -> str:
    return f"{numbers.number(match[1])} to {numbers.number(match[2])}"


def _plain(match: re.Match[str]) -> str:
    return _minus(match) + numbers.number(match["number"])


_SPAN = rf"(?P<number>{NUMBER})(?:\s?-\s?(?P<to>{NUMBER}))?"
_SIGNS = any_of(name for name in CURRENCIES if not name.isalpha())
_SCALE = r"(?P<scale>\s(?:thousand|million|billion|trillion)(?!\w)|\s?(?:[kKMBT]|mn|bn)(?!\w))?"
_RULES: tuple[Rule, ...] = (
    (
        re.compile(
            rf"{START}(?P<address>(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}})(?::(?P<port>[0-9]{{1,5}}))?{END}"
        ),
        _address,
    ),
    (re.compile(rf"{START}(?P<v>[vV]\.?\s?)(?P<parts>[0-9]{{1,5}}(?:\.[0-9]{{1,5}}){{0,4}}){END}"), _version),
    (re.compile(rf"{START}(?P<v>)(?P<parts>[0-9]{{1,5}}(?:\.[0-9]{{1,5}}){{2,4}}){END}"), _version),
    (
        re.compile(
            r"(?<![\w+])\+[0-9]{1,3}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?[0-9]{1,4}"
            r"(?:[ .-][0-9]{2,4}){1,4}(?![\w-])"
            r"|(?<![\w-])(?:1[ -])?(?:\([0-9]{3}\) ?|[0-9]{3}[-. ])[0-9]{3}[-. ][0-9]{4}(?![\w-])"
            r"|(?<![\w.,-])[0-9]{3}-[0-9]{4}(?![\w-])|(?<![\w-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![\w-])"
            r"|(?<![\w-])[0-9]{4}(?:[ -][0-9]{4}){3}(?![\w-])"
        ),
        _phone,
    ),
    (
        re.compile(
            rf"{_MINUS}(?P<currency>{_SIGNS})\s?(?P<number>{NUMBER})(?:\s?-\s?(?:{_SIGNS})?(?P<to>{NUMBER}))?{_SCALE}"
        ),
        _money,
    ),
    (
        re.compile(
            rf"{START}{_MINUS}{_SPAN}{_SCALE}\s?(?P<currency>[€£¥₹₩₽]|(?:USD|EUR|GBP|JPY|CAD|AUD|CHF)(?!\w))"
        ),
        _money,
    ),
    (re.compile(rf"{START}{_MINUS}{_SPAN}\s?%(?!\w)"), _percent),
    (re.compile(r"(?<![\w'])([3-8])'\s?([0-9]{1,2})?(?:\"|'')"), _height),
    (re.compile(r"(?<!\w)(?P<before>'?)(?P<decade>[1-9][0-9]{2}0|(?<=')[0-9]0)'?s(?!\w)"), _decade),
    (
        re.compile(
            r"(?<!\w)(?P<before>(?:mid|early|late|her|his|their|my|your)[ -])(?P<decade>[2-9]0)s(?!\w)"
        ),
        _decade,
    ),
    (re.compile(rf"{START}{_MINUS}{_SPAN}[\s-]?(?P<unit>{any_of(UNITS)})(?![\w'²³/])"), _unit),
    (
        re.compile(rf"{START}([0-9]{{1,3}}(?:,[0-9]{{3}}){{0,4}}|[0-9]{{1,15}})(?:st|nd|rd|th)(?!\w)"),
        _ordinal,
    ),
    (re.compile(rf"{START}({NUMBER})\s?[x×]\s?({NUMBER}){END}"), _by),
    (re.compile(rf"{START}({NUMBER})[x×](?!\w)"), lambda match: f"{numbers.quantity(match[1])} times"),
    (
        re.compile(
            r"(?<![\w/.,])(?:(?P<whole>[0-9]{1,4}) )?(?P<above>[0-9]{1,3})/(?P<below>[0-9]{1,3})(?![\w/.]*\w)"
            r"(?P<stars> stars?)?"
        ),
        _fraction,
    ),
    (re.compile(rf"(?:(?<!\w)([0-9]{{1,4}})\s?)?([{''.join(FRACTIONS)}])"), _sign_fraction),
    (
        re.compile(rf"{START}{_MINUS}(?P<number>{NUMBER})[eE](?P<sign>[+-])?(?P<power>[0-9]{{1,3}})(?!\w)"),
        _scientific,
    ),
    (
        re.compile(
            rf"{START}{_MINUS}(?P<number>[0-9]{{1,4}}(?:\.[0-9]{{1,2}})?)(?P<scale>k|(?<=[0-9][0-9])K|[MB])(?![\w'])"
        ),
        _scaled,
    ),
    (re.compile(rf"{START}({NUMBER}):({NUMBER}){END}"), _range),
    (re.compile(rf"(?<![\w-])(?<![0-9][.,])({NUMBER})-({NUMBER})(?![\w-]|[.,][0-9])"), _range),
    (re.compile(r"(?<![\w.])\.(?=[0-9])"), lambda _: "0."),
    (re.compile(rf"{_OUTSIDE}{_MINUS}(?P<number>{NUMBER})(?![\w{ASTERISK}{UNDERSCORE}])"), _plain),
    (
        re.compile(
            r"/(months?|mo|years?|yr|weeks?|wk|days?|hours?|hr|min|minutes?|sec|seconds?|users?|person|night|token)(?!\w)"
        ),
        lambda match: f" per {_PERIODS.get(match[1], match[1])}",
    ),
)
"""Patterns in the order in which they are tried, each with what it says."""
