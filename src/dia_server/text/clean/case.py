"""Words in mixed case, which espeak-ng spells letter by letter."""

import re

from dia_server.text.speakers import CAST_TAG

_WORD = re.compile(rf"(?i:{CAST_TAG.pattern})|(?<![A-Za-z\[])(?P<word>[A-Za-z]{{2,40}})(?![A-Za-z])")
"""A tag, which stays as it is, or a word."""
_RISE = re.compile("(?<=[a-z])[A-Z]")
_ODD = re.compile("[a-z][A-Z][a-z]?|[A-Za-z]?[a-z]+[A-Z]{2,}[a-z]+")
_BRAND = re.compile("[a-z][A-Z][a-z]{2,}")
"""Word such as "eBay"."""
_MEANT = frozenset(
    {
        "dB",
        "eV",
        "kB",
        "kW",
        "mA",
        "mV",
        "pH",
        "kHz",
        "mAh",
        "kWh",
        "xD",
        "iOS",
        "tRNA",
        "mRNA",
        "PhD",
        "IoT",
        "SaaS",
        "QoS",
        "DoS",
        "PyPI",
    }
)
"""Words in mixed case that are meant so."""
LETTERS_PER_HUMP = 4
"""Maximum letters for each capital inside a word in mixed case; longer words are meant so: "JavaScript"."""


def fold_mixed_case(text: str) -> str:
    """Return `text` with words such as "hElLo" in lower case; "JavaScript", "eBay" and "NASA" stay."""
    return _WORD.sub(
        lambda match: match[0].lower() if match["word"] and _is_mixed(match[0]) else match[0], text
    )


def _is_mixed(word: str) -> bool:
    if word in _MEANT:
        return False
    rises = len(_RISE.findall(word))
    is_short = rises > 0 and len(word) <= LETTERS_PER_HUMP * rises
    return (is_short and not _BRAND.fullmatch(word)) or _ODD.fullmatch(word) is not None
