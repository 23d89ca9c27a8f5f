"""Turns a text as people and language models write it into a text as it is said.

    from dia_server.text.clean import clean

Markdown, HTML, emoji, URLs, numbers and abbreviations become words and sentences; speaker tags, pauses and
sounds such as "(laughs)" stay. Pure functions, for English; each step has a module.
"""

from dia_server.text.clean.addresses import say_addresses
from dia_server.text.clean.amounts import say_amounts
from dia_server.text.clean.arithmetic import say_products
from dia_server.text.clean.calendar import say_dates_and_times
from dia_server.text.clean.hidden import with_closed_fences, without_hidden
from dia_server.text.clean.markdown import plain
from dia_server.text.clean.markers import Markers
from dia_server.text.clean.marks import tidy, typographic, without_emoji, without_signs
from dia_server.text.clean.phrases import say_phrases
from dia_server.text.clean.sounds import keep_marks

MAX_ROUNDS = 6
"""Maximum passes over a text. Prose takes one; most texts take two, of which the second changes nothing."""


def clean(text: str, *, code: str = "") -> str:
    """Return `text` as it is said, on one line; `text` itself if only its white space would change.

    Each fenced code block is said as `code`. A cleaned text stays as it is when it is cleaned again. Takes
    time linear in the length of `text`.
    """
    for _ in range(MAX_ROUNDS):
        before, text = text, _cleaned_once(text, code)
        if text == before:
            break
    return text


def _cleaned_once(text: str, code: str) -> str:
    markers = Markers()
    said = keep_marks(with_closed_fences(without_hidden(text)), markers)
    said = plain(say_products(without_emoji(said)), markers, code=code)
    said = typographic(say_addresses(said))
    said = say_amounts(say_dates_and_times(say_phrases(said)))
    said = tidy(markers.restore(tidy(without_signs(said))))
    return text if said.split() == text.split() else said
