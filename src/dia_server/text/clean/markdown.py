"""Takes the marks of Markdown and HTML off a text, and makes sentences of its headings, items and rows.

markdown-it-py parses. Its rules for reference definitions, indented code, setext headings and HTML blocks are
off, because prose triggers them: "[S1]: Hello" would vanish.
"""

# ruff: noqa: RUF001, SIM905 - quotes are meant; lists of names are read as text

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from dia_server.text.clean.markers import ASTERISK, BRACKET, UNDERSCORE, Markers
from dia_server.text.clean.numbers import number

_MARKUP = re.compile(r"[*_`\[<~|\\]|^[ \t]{0,3}(?:[#>+-]|[0-9]{1,9}[.)])|  \n|\n\s*\n", re.MULTILINE)
"""Anything that may be markup: most texts have none, and need no parser."""
_QUOTE = re.compile(r"^[ \t]{0,3}(?:>[ \t]{0,3}){1,100}", re.MULTILINE)
_NESTED = re.compile(r"^([ \t]{0,8})(?:[-+*][ \t]){2,}(?=[-+*][ \t])", re.MULTILINE)
"""Bullets on one line, of which the parser would drop what lies deeper than its limit."""
_TILDES = re.compile(r"^[ \t]{0,3}~{3,100}[ \t]{0,100}$", re.MULTILINE)
_TILDE_FENCE = re.compile(r"^[ \t]{0,3}~{3,100}[ \t]{0,100}\w", re.MULTILINE)
"""Fence of code with its language. Without one, a line of tildes is a separator, as role-play has it."""
_LARGE_NUMBER = re.compile(r"^(\s{0,3}\d{3,9})([.)])(?=\s)", re.MULTILINE)
"""Number at the beginning of a line that numbers no list, as in "1986. A good year"."""
_LETTER = r"[^\W_\u2e80-\U0010ffff]"
"""Letter or digit of a script that puts spaces between words."""
_LITERALS = (
    (re.compile(rf"(?<={_LETTER})\*(?={_LETTER})"), ASTERISK),
    (re.compile(rf"(?<={_LETTER})_(?={_LETTER})"), UNDERSCORE),
)
"""Asterisk or underscore between letters or digits, which is no emphasis: "f*ck", "snake_case"."""
_PYTHON_NAMES = (
    "add all author bool call class contains del dict doc enter eq exit file float format future "
    "getattr getitem hash import init int iter len lt main module name new next path repr setattr "
    "setitem slots str version"
)
_DUNDER = re.compile(
    rf"(?<![\w*])__(?:{'|'.join(_PYTHON_NAMES.split())})__(?!\w)|(?<=[^\W_]\.)__\w{{1,30}}?__(?!\w)"
)
"""Name of Python's with two underscores on each side, which are no emphasis: "__init__"."""
_TAGGED_LINE = re.compile(r"^([\U000f0000-\U000ffffd][ \t]{0,3})(?:#{1,6}|[-+*>])[ \t]", re.MULTILINE)
"""Mark of a heading or an item behind a speaker tag, where it is none."""
_BRACKET = re.compile(r"[\[\]]")
_TASK = re.compile(rf"^{BRACKET}[ xX]\]\s+")
_FOOTNOTE = re.compile(r"\[\^[\w-]{1,30}\]:?|(?<=[a-z.,;:!?)\"'”])(?:\[\d{1,3}\])+(?=[\s.,;:!?)]|$)")
"""Reference to a footnote or a source: "[^1]", "as shown[2]"."""
_CLOSING_TAG = re.compile(r"</([a-zA-Z][\w:-]{0,40})\s?>")
_TAG_NAME = re.compile(r"</?([a-zA-Z][\w:-]{0,40})")

_ENDS = re.compile(r"[^\W_][\"'”’)\]]{0,3}$|%$")
"""End of a block that lacks a full stop."""
_SENTENCE_STARTS = re.compile('(?:^|[.!?:]["”]?|[\n\U000f0000-\U000ffffd])\\s{0,2}$')
_GOES_ON = re.compile(r"\s{0,2}[\"“]|\s{1,2}[A-Z]")

HTML_TAGS = frozenset(
    "a abbr acronym address article aside audio b big blockquote body br button caption center cite "
    "code col dd del details dfn div dl dt em embed fieldset figcaption figure font footer form h1 h2 "
    "h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend li link main map mark "
    "meta nav object ol option p pre q s samp script section select small source span strike strong "
    "style sub summary sup svg table tbody td textarea tfoot th thead time title tr tt u ul var video "
    "wbr".split()
)
BREAKING_TAGS = frozenset(
    "br p div li ul ol tr h1 h2 h3 h4 h5 h6 hr blockquote section table td th dt dd".split()
)
"""Tags at which a sentence ends."""


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True, "maxNesting": 40}).enable(["table", "strikethrough"])
    return parser.disable(["reference", "code", "lheading", "html_block", "blockquote", "entity", "escape"])


def plain(text: str, markers: Markers, *, code: str) -> str:
    """Return `text` without marks; each fenced code block is said as `code`."""
    text = _TAGGED_LINE.sub(r"\1", text)
    if not _MARKUP.search(text):
        return text
    text = _FOOTNOTE.sub("", _LARGE_NUMBER.sub(lambda match: f"{match[1]}{markers.keep(match[2])}", text))
    text = _DUNDER.sub(lambda match: markers.keep(match[0]), text)
    for pattern, literal in _LITERALS:
        text = pattern.sub(literal, text)
    text = _NESTED.sub(r"\1", _QUOTE.sub("", text))
    if not _TILDE_FENCE.search(text):
        text = _TILDES.sub("", text)
    blocks = [*_blocks(_parser().parse(_without_loose_brackets(text)), code, _known_tags(text))]
    return " ".join(block for block in blocks if block)


def _without_loose_brackets(text: str) -> str:
    """Return `text` with BRACKET for each "[" that begins no link, because the parser tries each for long."""
    opened, links = [], set()
    for match in _BRACKET.finditer(text):
        if match[0] == "[":
            opened.append(match.start())
        elif opened and text.startswith("(", match.end()):
            links.add(opened.pop())
        elif opened:
            opened.pop()
    return _BRACKET.sub(
        lambda match: BRACKET if match[0] == "[" and match.start() not in links else match[0], text
    )


def _known_tags(text: str) -> frozenset[str]:
    """Return the names of the tags of HTML, and of those that `text` closes, such as a model's own."""
    return HTML_TAGS | {match[1].lower() for match in _CLOSING_TAG.finditer(text)}


def _blocks(tokens: Sequence[Token], code: str, tags: frozenset[str]) -> Iterator[str]:
    """Yield each block as text; all but a last paragraph end like a sentence."""
    last = max((index for index, token in enumerate(tokens) if token.type == "inline"), default=0)
    cells: list[str] = []
    in_table, prefix, is_item, is_heading = False, "", False, False
    for index, token in enumerate(tokens):
        match token.type:
            case "table_open" | "table_close":
                in_table = not in_table
            case "tr_close":
                yield _ended(", ".join(cell for cell in cells if cell))
                cells = []
            case "list_item_open":
                is_item, prefix = True, f"{number(token.info).capitalize()}: " if token.info else ""
            case "list_item_close":
                is_item = False
            case "heading_open" | "heading_close":
                is_heading = not is_heading
            case "fence":
                yield code
            case "inline":
                said = _inline(token.children or [], tags).strip()
                if in_table:
                    cells.append(said)
                elif is_item:
                    yield _ended(prefix + _capitalized(_TASK.sub("", said)))
                    prefix = ""
                else:
                    yield _ended(said) if is_heading or index < last else said


def _inline(tokens: Sequence[Token], tags: frozenset[str]) -> str:
    """Return the text of inline tokens; emphasis that begins a sentence and is none gets a full stop."""
    parts: list[str] = []
    openings: list[tuple[int, str]] = []
    before = ""
    for token, following in pairwise([*tokens, Token("end", "", 0)]):
        match token.type:
            case "em_open" | "strong_open":
                openings.append((len(parts), before))
            case "em_close" | "strong_close":
                opening, lead = openings.pop()
                words = "".join(parts[opening:])
                is_label = token.type == "strong_close" and not lead
                if (
                    _SENTENCE_STARTS.search(lead)
                    and (is_label or _is_action(words))
                    and _GOES_ON.match(following.content)
                ):
                    parts.append("." if words[-1:].isalnum() else "")
            case "softbreak":
                parts.append("\n")
            case "hardbreak":
                parts.append(_line_end(before))
            case "html_inline":
                parts.append(_tag(token.content, before, tags))
            case "image":
                parts.append(_inline(token.children or [], tags))
            case _:
                parts.append(token.content)
        before = (before + parts[-1])[-4:] if parts else ""
    return "".join(parts)


def _is_action(words: str) -> bool:
    """Return whether emphasized `words` are an action, such as "*waves*", and not a title or a name."""
    return words[:1].islower() or words.count(" ") >= 2


def _tag(tag: str, before: str, tags: frozenset[str]) -> str:
    """Return what stands for an HTML tag: nothing, the end of a line, or the tag itself if it is none."""
    match = _TAG_NAME.match(tag)
    if match is None:
        return ""
    name = match[1].lower()
    if name not in tags:
        return tag
    return _line_end(before) if name in BREAKING_TAGS else ""


def _line_end(before: str) -> str:
    return ". " if _ENDS.search(before) else " "


def _ended(text: str) -> str:
    """Return `text` with a full stop if it ends like a word."""
    text = text.strip()
    return f"{text}." if _ENDS.search(text[-4:]) else text


def _capitalized(text: str) -> str:
    """Return `text` with a capital first letter, unless the word has capitals of its own ("iPhone")."""
    return text[:1].upper() + text[1:] if not text[1:2].isupper() else text
