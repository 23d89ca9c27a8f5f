"""Addresses of pages, mail and machines, and names of files, as they are said."""

# ruff: noqa: RUF001 - quotes and signs of typography are meant

import re

from dia_server.text.clean import numbers
from dia_server.text.clean.tables import FILES, TOP_LEVEL

_REST = r"[^\s<>\"'”’\])}|`\U000f0000-\U000ffffd]{1,2000}"
_URL = re.compile(rf"(?:https?|ftps?|wss?|file)://{_REST}|(?<![\w.@/])www\.{_REST}", re.IGNORECASE)
_HOST = re.compile(r"(?:[a-z]{2,5}:/{2,3})?(?:[^\s/@]{0,64}@)?([^/:?#]{0,253})", re.IGNORECASE)
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![\w@])")
_NAME = re.compile(
    rf"(?<![\w.@-])(?:[\w-]{{1,63}}\.){{1,4}}(?:{'|'.join(TOP_LEVEL)})(?::\d{{1,5}})?(?:/[^\s,;!?)\]]{{0,200}})?(?![\w@-]|\.\w)"
)
_FILE = re.compile(rf"(?<![\w.@])(?:[\w-]{{1,63}}\.){{1,3}}(?:{'|'.join(FILES)})(?!\w)")
_TRAILING = '.,;:!?*_"'


def say_addresses(text: str) -> str:
    """Return `text` with "example dot com" for URLs and names of machines, mail addresses and file names."""
    text = _URL.sub(_url, text)
    text = _MAIL.sub(lambda match: _dotted(match[0].replace("@", " at ")), text)
    text = _NAME.sub(lambda match: _dotted(re.split("[:/]", match[0])[0].removeprefix("www.")), text)
    return _FILE.sub(lambda match: _dotted(match[0]), text)


def _url(match: re.Match[str]) -> str:
    """Return the domain of a URL; the punctuation of the sentence stays behind it."""
    url = match[0].rstrip(_TRAILING)
    host = _HOST.match(url)
    domain = host[1].removeprefix("www.").strip(".") if host else ""
    return f"{_dotted(domain) or 'link'}{match[0][len(url) :]}"


def _dotted(name: str) -> str:
    parts = [
        numbers.digits(part) if part.isdecimal() and part.isascii() else part for part in name.split(".")
    ]
    return " dot ".join(part for part in parts if part)
