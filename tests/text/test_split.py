"""Cuts of a text; in the examples, `|` marks an expected cut."""

# ruff: noqa: RUF001 - quotes and punctuation of other scripts are meant

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dia_server.text.split import characters, clauses, sentences, words


@pytest.mark.parametrize(
    "text",
    [
        "One. |Two! |Three?",
        "Really?! |Yes... |No… |Well.",
        "Dr. Smith met Mr. Jones, vs. nobody. |They talked.",
        "Some fruit, e.g. apples, i.e. the red ones. |Fine.",
        "J. R. R. Tolkien wrote it. |So did I. |Then he left.",
        "The U.S. Army came. |It left.",
        "Pi is 3.14 or so. |Version 2.0.1 is out.",
        "See www.example.com/a.b?c=d. |Then go on.",
        "No. 5 is alive. |He said no. |Then he went.",
        "1. Take this. |2. Take that. |3) Go.",
        "It was 1984. |Then it was over.",
        '"Why?" she asked. |"Because." |He left.',
        "(It rained.) |“Really?” |‘Yes.’ |Fine.",
        "he said... and left. |Then",
        "etc. and so on. |Apples, etc. |Then pears.",
        "你好。|我是一个学生。|真的吗？|「是的。」|好",
        "مرحبا؟ |نعم.",
        "नमस्ते। |आप कैसे हैं?",
        "No end",
        "A.B. ",
    ],
)
def test_sentences(text: str) -> None:
    assert "|".join(sentences(text.replace("|", ""))) == text


@pytest.mark.parametrize(
    "text",
    [
        "Well, |then; |so: |go",
        "It costs 1,000 or 12:30 or a-b",
        "Wait— |no — |yes - |maybe",
        "He came |(late) |[very]",
        "“So,” |he said",
        "你好，|世界、|再见",
    ],
)
def test_clauses(text: str) -> None:
    assert "|".join(clauses(text.replace("|", ""))) == text


def test_words_keep_the_space_after_them() -> None:
    assert words("one two  three ") == ["one ", "two  ", "three "]


CLUSTERS = [
    *("a", "字", "e\u0301", "n\u0303"),
    *("👩‍👩‍👧‍👦", "👨🏽‍🚀", "👍🏽", "❤️", "1️⃣"),
    *("🇫🇷", "🇩🇪", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"),
    *("각", "\u1112\u1161\u11ab", "\ua960\u1161\ud7cb"),  # Korean: a syllable, its jamo, old jamo
    *("क्षि", "न्दी", "त्रि"),  # Hindi conjuncts
    *("น้ำ", "กำ", "ที่"),  # Thai; SARA AM is a letter by its category
    *("ຄຳ", "မာ", "ខ្មែ", "ক্ষ", "ന്‍റെ"),  # Lao, Burmese, Khmer, Bengali, Malayalam
    *("ی\u200c", "ｶﾞ", "שָׁ"),  # Persian with a non-joiner, halfwidth katakana, Hebrew
]  # fmt: skip
"""Grapheme clusters that stay separate beside each other, whatever their order."""


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(st.sampled_from(CLUSTERS)))
def test_real_grapheme_clusters_are_never_cut(clusters: list[str]) -> None:
    assert characters("".join(clusters)) == clusters


@pytest.mark.parametrize(
    "text",
    [
        "a|b|c",
        "e\u0301|n\u0303",
        "👩‍👩‍👧‍👦|x",
        "🇫🇷|🇩🇪|🇫",
        "👍🏽|👍",
        "각|나|\u1112\u1161\u11ab",
        "क्षि|न",
        "กำ|ลั|ง|น้ำ|ใ|จ",
        "မြ|န်|မာ|ဘာ|သာ",
    ],
)
def test_characters_are_grapheme_clusters(text: str) -> None:
    assert "|".join(characters(text.replace("|", ""))) == text


def test_a_space_belongs_to_the_character_before_it() -> None:
    assert characters("a b" + "\u0301" * 20 + " c ") == ["a ", "b" + "\u0301" * 13, "\u0301" * 7 + " ", "c "]


def test_a_cluster_that_is_too_long_is_cut() -> None:
    assert max(map(len, characters("e" + "\u0301" * 1000))) == 14
