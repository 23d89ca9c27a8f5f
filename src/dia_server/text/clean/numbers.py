"""Numbers in English words, as Americans say them."""

from functools import lru_cache

from num2words import num2words

MAX_DIGITS = 15
"""Maximum digits of a number that is said as a number; longer ones are said digit by digit."""
YEARS = range(1100, 2100)
"""Numbers of four digits without a comma that are said as years: "1986" is "nineteen eighty-six"."""
LETTERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@lru_cache(4096)
def cardinal(number: int) -> str:
    """Return `number`, of at most MAX_DIGITS digits: 1299 is "one thousand two hundred ninety-nine"."""
    return _american(num2words(number))


@lru_cache(1024)
def ordinal(number: int) -> str:
    """Return the ordinal of `number`: 21 is "twenty-first"."""
    return _american(num2words(number, to="ordinal"))


@lru_cache(1024)
def year(number: int) -> str:
    """Return `number` as a year: 1905 is "nineteen oh-five"."""
    return _american(num2words(number, to="year"))


def digits(text: str) -> str:
    """Return the digits of `text` one by one; other characters are left out."""
    return " ".join(LETTERS[int(one)] for one in text if "0" <= one <= "9")


def number(text: str) -> str:
    """Return a number as it is written, such as "1,299.50", in words: "... ninety-nine point five zero".

    Digits are said one by one from 16 places up, after a leading zero, and behind the decimal point.
    """
    whole, _, fraction = text.replace(",", "").partition(".")
    plain = "," not in text and not fraction
    if len(whole) > MAX_DIGITS or (len(whole) > 1 and whole[0] == "0"):
        said = digits(whole)
    elif plain and len(whole) == 4 and int(whole) in YEARS:
        said = year(int(whole))
    else:
        said = cardinal(int(whole)) if whole else ""
    return f"{said} point {digits(fraction)}".strip() if fraction else said


def quantity(text: str) -> str:
    """Return a number that counts something, so that it is no year: "1500" is "one thousand five hundred"."""
    whole, point, fraction = text.replace(",", "").partition(".")
    grouped = f"{int(whole):,}" if whole.isdigit() and len(whole) <= MAX_DIGITS and whole[0] != "0" else whole
    return number(f"{grouped}{point}{fraction}")


def is_one(text: str) -> bool:
    """Return whether a noun after the number `text` is singular."""
    return text.replace(",", "") == "1"


def _american(words: str) -> str:
    return words.replace(",", "").replace(" and ", " ")
