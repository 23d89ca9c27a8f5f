"""Properties of cleaning, checked on thousands of random texts, and its time on hostile ones."""

# ruff: noqa: RUF001 - marks and digits that look like others are meant

import gc
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dia_server.text.clean import clean
from dia_server.text.plan import plan
from dia_server.text.speakers import tag

FRAGMENTS = [
    *("Hello", "world", "I", "a", "St.", "Dr.", "e.g.", "etc."),
    *("Henry", "VIII", "Chapter", "Jan", "May", "am"),
    *("1", "12", "007", "1986", "1,299.50", "3.14", ".5"),
    *("2024-01-15", "1/2", "12:30", "10am", "5'10\"", "v1.2.3"),
    *("$", "€", "US$", "%", "°C", "km", "k", "M"),
    *("st", "th", "x", "½", "555-123-4567", "1e5", "1234567890123456789"),
    *("[S1]", "[s2]", "[S3]", "[pause:1.5s]", "[pause:1]", "(laughs)"),
    *("[sighs]", "*laughs*", "_coughs_", "<laugh>"),
    *("*", "**", "***", "_", "__", "`", "``", "```", "~", "~~"),
    *("~~~", "#", "##", "-", "+", ">", "|", "=", "\\"),
    *("\n", "\n\n", "\n- ", "\n1. ", "\n# ", "\n> ", "\n    "),
    *("\n```\n", "\n|-|\n", "  \n", "\t", "\r\n"),
    *("[", "]", "(", ")", "](", "![", "[a](b)", "[^1]", "[1]", "[ ]", "{", "}"),
    *("<", ">", "<b>", "</b>", "<br>", "<name>", "</name>"),
    *("<think>", "</think>", "<!--", "-->", "<!-->", "<script>", "<3"),
    *("&", "&amp;", "&lt;", "&gt;", "&#42;", "&#x5b;", "&nbsp;", "&amp;lt;", "&copy"),
    *("https://a.example/b_c?d=e*f", "www.a.com", "a.com", "a@b.com", "main.py"),
    *("127.0.0.1:80", "http://", "://"),
    *("“", "”", "’", "…", "—", "–", "--", "---", "!!", "?!?", "...."),
    *(",,", ";", ":", ".", "!", "?", ",", "'", '"'),
    *("😀", "👍🏽", "👩‍👩‍👧", "1️⃣", "🇫🇷", "❤️", ":)", ":smile:", "xD"),
    *("^_^", "^", "^2", "→", "->", "•", "©"),
    *("__init__", "snake_case", "2*3", "a*b", "@a", "#a", "C#"),
    *("C++", "R&D", "and/or", "w/", "hElLo", "iPhone"),
    *("你好。", "你*好*", "مرحبا", "١٢", "１２", "²", "e\u0301"),
    *("\u200b", "\u200d", "\ue000", "\ue001", "\U000f0000", "\x00"),
    *("\ud800", "\u2028", "\x1c", "\x0b", "\x85", "İ", "ſ", "ß", "\u00a0", "\ufeff"),
]  # fmt: skip

HOSTILE = [
    *("[", "![", "([", "[a](", "](", "![x](y)", "[\n", "[^1]"),
    *("[x] ", "*", "*a ", "**a*", "_a_ ", "__a__", "a_b"),
    *("`", "`a``", "```\n", "~~a", "~~~\n", "<", "<a "),
    *('<a b="', "<x>", "</x>", "<!--", "<think>", "</think>"),
    *("<!-->", "<think>\n[S1] ", "```a\n[S1]\n"),
    *("&", "&amp;", "&#1;", "|a", "|a|b|\n|-|-|\n", "> ", "- ", " - a\n"),
    *("1. ", "#", "\\", "\n", "a\n\n", "  "),
    *("1", "1,", "1.", "1 ", "1-", "1/", "1:", "12 13 "),
    *("1,234,", "1,111", "$1", "$1-$", "1x1", "1e5 ", "1½ "),
    *("v1.", "1st ", "+1 555 ", "555-", "Jan 1, ", "2024-01-01 "),
    *("10am ", "Henry VIII ", "St. ", "e.g.", "a.m."),
    *("http://a", "https://a.b/c ", "a.b.c.", "a@b.c ", "www.a", "://", "@a"),
    *("a-", "a/", "/month", "2*3", "x<"),
    *("-", "--", "—", "!?", ".", ", ", " ,", "°"),
    *("😀", ":smile:", "(", "(laughs)", "*laughs*", "[S1] ", "hElLo "),
]  # fmt: skip
"""Patterns that are repeated; `make test-full` measures the time of each at the maximum length."""


def run(examples: int, prop: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    """Check that `prop` holds for that many values of `strategies`."""
    quick = settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    quick(given(*strategies)(prop))()


each_number_of_examples = pytest.mark.parametrize(
    "examples", [250, pytest.param(20_000, marks=pytest.mark.full)]
)
"""Number of random texts: the long run is part of `make test-full`."""

MARKUP_LIKE = st.tuples(st.lists(st.sampled_from(FRAGMENTS), max_size=25), st.sampled_from(["", " "])).map(
    lambda drawn: drawn[1].join(drawn[0])
)


@each_number_of_examples
def test_cleaning_a_cleaned_text_changes_nothing(examples: int) -> None:
    def holds(text: str) -> None:
        said = clean(text)
        assert clean(said) == said

    run(examples, holds, MARKUP_LIKE | st.text(max_size=100))


@each_number_of_examples
def test_speaker_tags_and_pauses_outside_of_code_and_thoughts_survive(examples: int) -> None:
    kept = [one for one in FRAGMENTS if not re.search("[`~<>&|]", one)]

    def holds(fragments: list[str]) -> None:
        text = " ".join(fragments)
        found = re.compile(r"\[S\d\]|\[pause:[\d.]+s\]|\(laughs\)", re.IGNORECASE)
        expected = found.findall(text.replace("[pause:1]", "[pause:1s]").replace("*laughs*", "(laughs)"))
        assert found.findall(clean(text)) == expected

    run(examples, holds, st.lists(st.sampled_from(kept), max_size=25))


@each_number_of_examples
def test_nothing_of_a_cleaned_text_is_lost_in_its_plan(examples: int) -> None:
    def holds(text: str) -> None:
        said = tag(clean(text), "S1")
        segments = plan(said).utterances
        spoken = "".join(segment.text for segment in segments)
        assert letters(re.sub(r"\[S[1-9]\]", "", spoken)) == letters(
            re.sub(r"\[S[1-9]\]|\[pause:\s?[\d.]+\s?m?s\]", "", said, flags=re.IGNORECASE)
        )

    run(examples, holds, MARKUP_LIKE)


def letters(text: str) -> str:
    return "".join(one for one in text if unicodedata.category(one)[0] in "LN")


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_hostile_text_is_cleaned(pattern: str) -> None:
    clean((pattern * 5000)[:5000])


@pytest.mark.full
@pytest.mark.parametrize("pattern", HOSTILE)
def test_time_grows_with_the_length_and_no_faster(pattern: str) -> None:
    texts = [pattern * (size // len(pattern)) for size in (40_000, 80_000)]
    # in turns, because a busy machine makes the processor's time longer for a while
    times = [[cpu_seconds(text) for text in texts] for _ in range(5)]
    short, long = (min(column) for column in zip(*times, strict=True))

    assert long < 2
    assert long < 2.5 * max(short, 0.05)


def cpu_seconds(text: str) -> float:
    """Return the processor time of cleaning `text`.

    Without the collector's passes over the whole process, and untraced: coverage takes three times as long.
    """
    tracer = sys.gettrace()
    sys.settrace(None)
    gc.collect()
    gc.disable()
    try:
        start = time.thread_time()
        clean(text)
        return time.thread_time() - start
    finally:
        gc.enable()
        sys.settrace(tracer)
