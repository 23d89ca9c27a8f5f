from collections import UserDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dia_server.text.pronunciation import Respelling, Table, respell
from dia_server.text.speakers import CAST_TAG, called

# ruff: noqa: RUF001 - other apostrophes are meant

GLOBAL: Table = {
    "sql": "sequel",
    "GIF": "jif",
    "nguyen": "win",
    "kubectl": "koob control",
    "o'brien": "oh bryan",
    "co-op": "coop",
    "4k": "four kay",
    "laughs": "laffs",
    "s1": "ess one",
    "pause": "paws",
    "café": "kaffay",
    "don": "dawn",
    "win": "loss",
    "IEEE": "I triple E",
}
ARIA: Table = {"sql": "squeal", "gif": "ghif"}


def said(text: str, *tables: Table) -> str:
    chosen = tables or (GLOBAL,)
    return respell(text, dict.fromkeys(["S1", *called(text)], chosen), "S1").text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sql, then (sql)!", "sequel, then (sequel)!"),
        ("Sql and SQL.", "Sequel and Sequel."),
        ("MySQL and sqlite", "MySQL and sqlite"),
        ("my_sql 4K 4k.", "my_sequel four kay four kay."),
        ("a GIF, a gif, a Gif", "a Jif, a gif, a Gif"),
        ("IEEE", "I triple E"),
        ("Nguyen", "Win"),
        ("Nguyen’s, NGUYEN's", "Win’s, Win's"),
        ("Nguyen-Smith and anti-sql", "Win-Smith and anti-sequel"),
        ("co-op, co op", "coop, co op"),
        ("O’Brien, O'Brien's", "Oh bryan, Oh bryan's"),
        ("Don don't Don's", "Dawn don't Dawn's"),
        ("cafe\u0301 CAFÉ cafe", "kaffay Kaffay cafe"),
        ("[S1] s1 [s2] S1", "[S1] ess one [s2] Ess one"),
        ("[pause:1.5s] pause [PAUSE: 500 ms]", "[pause:1.5s] paws [PAUSE: 500 ms]"),
        ("(laughs) laughs ( Laughs )", "(laughs) laffs ( Laughs )"),
        ("nguyen win", "win loss"),
        ("sql\n\nsql  sql", "sequel\n\nsequel  sequel"),
        ("", ""),
    ],
)
def test_whole_words_are_respelled_and_nothing_else(text: str, expected: str) -> None:
    assert said(text) == expected


def test_the_first_table_with_the_word_wins() -> None:
    assert said("SQL GIF Nguyen", ARIA, GLOBAL) == "Squeal Ghif Win"


def test_each_speaker_has_tables_of_its_own() -> None:
    tables = {"S1": (ARIA,), "S2": (GLOBAL,), "S3": (), "voice:sql": (ARIA,)}

    found = respell("sql [S2] sql [S1] sql [s2] Sql [S3] sql [voice: sql] sql", tables, "S1")
    untagged = respell("sql", tables, "S2")

    assert found.text == "squeal [S2] sequel [S1] squeal [s2] Sequel [S3] sql [voice: sql] squeal"
    assert untagged.text == "sequel"


def test_what_was_replaced_is_listed_once_and_in_order() -> None:
    found = respell("Nguyen's sql, sql and SQL.", {"S1": (GLOBAL,)}, "S1")

    assert found.applied == (
        Respelling("Nguyen", "Win"),
        Respelling("sql", "sequel"),
        Respelling("SQL", "Sequel"),
    )


PARTS = st.sampled_from(
    [
        *GLOBAL,
        "SQL",
        "[S1]",
        "[s2]",
        "[pause:1.5s]",
        "(laughs)",
        "( Sighs )",
        "[",
        "]",
        "(",
        ")",
        "'s",
        "-",
        "é",
    ]
)
TEXTS = st.lists(st.one_of(PARTS, st.text(max_size=5)), max_size=20).flatmap(
    lambda parts: st.sampled_from(["", " "]).map(lambda space: space.join(parts))
)


@settings(max_examples=300, deadline=None, database=None)
@given(TEXTS)
def test_tags_stay_whatever_stands_beside_them(text: str) -> None:
    assert CAST_TAG.findall(said(text)) == CAST_TAG.findall(text)


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(max_size=100))
def test_a_text_without_words_of_the_table_stays(text: str) -> None:
    found = respell(text, dict.fromkeys(["S1", *called(text)], ({"qqqqq": "x"},)), "S1")

    assert "qqqqq" in text.lower() or (found.text, found.applied) == (text, ())


class Counting(UserDict[str, str]):
    """Counts the characters of the words that are looked up."""

    looked_up = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.looked_up += len(key)
        return super().get(key, default)


@pytest.mark.parametrize(
    "pattern",
    ["a", "a ", "a-", "a'", "a's-", "e\u0301", "[s1]", "(laughs) ", "( ", "[pause:1", "sql ", "'s "],
)
def test_each_character_is_looked_up_a_fixed_number_of_times(pattern: str) -> None:
    table = Counting(GLOBAL)

    said((pattern * 80_000)[:80_000], table)

    assert table.looked_up <= 6 * 80_000
