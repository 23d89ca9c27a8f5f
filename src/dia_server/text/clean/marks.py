"""Emoji, quotes, dashes and repeated marks: what is seen, but not said."""

# ruff: noqa: RUF001 - marks that look like others are meant

import html
import re

import regex

from dia_server.text.clean.markers import PRIVATE
from dia_server.text.clean.tables import SIGNS

_GAP = "\ue000"
"""Stands for a removed emoji until it is known what follows."""
_KEYCAP = re.compile("([0-9])\ufe0f?\u20e3")
_EMOJI = regex.compile(
    r"(?:[\p{Emoji_Presentation}\p{Regional_Indicator}]|(?![©®™‼⁉])\p{Extended_Pictographic}|(?<=\S)[\ufe0e\ufe0f])"
    r"[\p{Emoji_Modifier}\ufe0e\ufe0f\u20e3\u200d\U000e0020-\U000e007f]*+"
)
_EMOTICON = re.compile(
    r"(?<!\S)(?:[:;=8xX][-'^]?[)(DPpOo3/|\\*]{1,3}|<3|</3|\^[_.]?\^|[xX]D|[oO]_[oO]|-_-|>[:;]\(|:'\()(?=[\s.,!?]|$)"
)
_SHORTCODE = re.compile(r"(?<!\S):[a-z][a-z0-9_+-]{1,30}:(?=[\s.,!?]|$)")
_GAP_AT_LINE_END = re.compile(rf"(?<=[^\W_])[ ]?{_GAP}(?=[ \t]?\n)")
_GAP_BEFORE_MARK = re.compile(rf" ?{_GAP} ?(?=[.,!?;:)])")

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_TWICE_ENCODED = re.compile(r"&(?:amp;)+")

Rules = tuple[tuple[re.Pattern[str], str], ...]

_TYPOGRAPHY: Rules = (
    (re.compile("[“”„‟«»″]"), '"'),
    (re.compile("[‘’‚‛′]"), "'"),
    (re.compile("…"), "..."),
    (re.compile(r"(?<=\d)[‐‑‒–−](?=[\d$€£])"), "-"),
    (re.compile(r"(?<![\w)])[‒–−](?=[\d.$€£])"), "-"),
    (re.compile("[‐‑]"), "-"),
    (re.compile(r"[ ]?(?:-{1,3}>|=>|⟶|➜|➔|➡)[ ]?"), " → "),
    (re.compile(r"[ ]?(?:<-{1,3}|⟵)[ ]"), " ← "),
    (re.compile(r"(?<=\w)(?:[—–―]|-{2,3})(?=[\"'](?:\s|$)|\s{0,9}$)"), "..."),
    (re.compile(r"(?<=[\w)\"'%])\s{0,2}(?:[—–―]|--)++-?\s{0,2}(?=\S)"), ", "),
    (re.compile(r"(?:[—–―]|--)++-?"), " "),
    (re.compile(r"([,;:])\1+"), r"\1"),
    (re.compile(r"\.{4,}"), "..."),
    (re.compile(r"!=="), "≠"),
    (re.compile(r"!=(?!=)"), "≠"),
    (re.compile(r"<="), "≤"),
    (re.compile(r">="), "≥"),
    (re.compile(r"(?<!=)={2}(?!=)"), "="),
    (re.compile(r"={3,}|#{2,}|~{2,}"), " "),
)
"""Marks of typography as plain punctuation, in this order. A dash before a closing quote breaks off."""

_EXCLAIMED = re.compile("[!?‽]{2,}")
_EMPHASIS = re.compile("[*_]+")
"""Marks of emphasis that have no partner."""
_LINK_LIKE = re.compile(r"\](?=\()")
_SLASH = re.compile(r"(?<=[A-Za-z)])/(?=[A-Za-z(])")
_SIGN = re.compile("[" + "".join(map(re.escape, SIGNS)) + "]")
_LEADING = re.compile(r"^[\s>#+=|-]+(?=[\s>#+=|-])\s*|^[>#+=|]+|^[-+]\s+")
_SPACE_BEFORE_MARK = re.compile(r" (?=[,.;!?](?:\s|$))")
_DOUBLED_COMMA = re.compile(r",(?:\s?,)+")
_STRAY_COMMA = re.compile(r"(?<=[.!?:;]) ?,(?=\s)")


def without_emoji(text: str) -> str:
    """Return `text` without emoji, emoticons and `:shortcodes:`; one that ends a line ends a sentence."""
    text = _EMOJI.sub(_GAP, _KEYCAP.sub(r"\1 ", text))
    text = _SHORTCODE.sub(_GAP, _EMOTICON.sub(_GAP, text))
    if _GAP not in text:
        return text
    return _GAP_BEFORE_MARK.sub("", _GAP_AT_LINE_END.sub(".", text)).replace(_GAP, " ")


def typographic(text: str) -> str:
    """Return `text` with entities decoded, and with plain quotes, dashes and single marks."""
    text = _ENTITY.sub(lambda match: PRIVATE.sub("", html.unescape(match[0])), _TWICE_ENCODED.sub("&", text))
    for pattern, plain in _TYPOGRAPHY:
        text = pattern.sub(plain, text)
    return _EXCLAIMED.sub(_exclaimed, text)


def _exclaimed(match: re.Match[str]) -> str:
    """Return one mark for a run of equal ones; a longer run of both is a question in surprise."""
    marks = match[0]
    if len(set(marks)) == 1:
        return marks[0]
    return marks if len(marks) == 2 else "?!"


def without_signs(text: str) -> str:
    """Return `text` with names for the signs that are left, and without the marks of Markdown that are."""
    text = _LINK_LIKE.sub("] ", _EMPHASIS.sub(" ", text))
    text = _SLASH.sub(" ", text)
    return _SIGN.sub(lambda match: f" {SIGNS[match[0]]} ", text)


def tidy(text: str) -> str:
    """Return `text` on one line, without doubled spaces and commas, and without marks at the beginning."""
    text = _LEADING.sub("", " ".join(text.split()))
    text = _STRAY_COMMA.sub("", _DOUBLED_COMMA.sub(",", _SPACE_BEFORE_MARK.sub("", text)))
    return text.strip()
