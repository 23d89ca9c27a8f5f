"""Asterisks between numbers, which mean a product and are no emphasis."""

import re

_POWER = re.compile(r"(?<=[0-9)])\*\*(?=[0-9(])")
_TIMES = re.compile(r"(?<=[0-9)])(?:\*| \* )(?=[0-9(])|(?<=\b[a-z]) \* (?=[a-z]\b)")


def say_products(text: str) -> str:
    """Return `text` with "2*3" as "2 times 3" and "2**3" as "2^3"."""
    return _TIMES.sub(" times ", _POWER.sub("^", text))
