from collections.abc import Callable

import pytest

from tests.browser.studio import OpenStudio, Studio
from tests.each import each
from tests.live.server import Server


@pytest.fixture
def studio(open_studio: OpenStudio, server: Server) -> Studio:
    for entry in server.get("/pronunciations").json()["pronunciations"]:
        query = {name: entry[name] for name in ("word", "voice_id") if entry[name]}
        server.delete("/pronunciations", params=query).raise_for_status()
    return open_studio(server.url, "voices")


def add(studio: Studio, word: str, respelling: str, voice: str = "All voices") -> None:
    form = studio.page.get_by_role("form", name="Pronunciations")
    form.get_by_label("Word").fill(word)
    form.get_by_label("Said as").fill(respelling)
    form.get_by_label("By").select_option(voice)
    form.get_by_role("button", name="Add", exact=True).click()


def choose(studio: Studio, content: bytes) -> None:
    studio.page.get_by_label("Import CSV").set_input_files(
        {"name": "words.csv", "mimeType": "text/csv", "buffer": content}
    )


def rows(studio: Studio) -> list[str]:
    return studio.page.locator(".respellings li").all_inner_texts()


def wait_for_rows(studio: Studio, *expected: str) -> None:
    studio.wait_until(lambda: rows(studio) == [*expected], f"rows {expected}")


def the_table_is_exported_and_imported(studio: Studio) -> None:
    add(studio, "nguyen", "win")
    wait_for_rows(studio, "nguyen → win")
    with studio.page.expect_download() as download:
        studio.button("Export CSV").click()
    assert download.value.path().read_text() == "word,respelling,voice_id\nnguyen,win,\n"

    choose(studio, b"word,respelling\nSQL,sequel\n")
    studio.wait_for_text("Pronunciations imported: 1")
    wait_for_rows(studio, "SQL → sequel", "nguyen → win")

    choose(studio, b"word,respelling\nSQL\n")
    studio.wait_for_text("line 2")
    for word in ("SQL", "nguyen"):
        studio.button(f"Delete the pronunciation of {word}").click()
    wait_for_rows(studio)


def a_word_is_respelled_in_the_plan_and_given_back(studio: Studio) -> None:
    add(studio, "nguyen", "win")
    wait_for_rows(studio, "nguyen → win")
    add(studio, "gif", "jif", "Aria")
    wait_for_rows(studio, "nguyen → win", "gif → jif by Aria")
    assert studio.accessibility_violations() == []

    studio.open("speak")
    studio.write("A GIF by Nguyen.")
    studio.wait_until(lambda: "A Jif by Win." in studio.text("#plan"))
    studio.open("voices")
    studio.button("Delete the pronunciation of nguyen").click()
    wait_for_rows(studio, "gif → jif by Aria")
    studio.undo("“nguyen” is said as written.")
    wait_for_rows(studio, "nguyen → win", "gif → jif by Aria")


@each("part", [the_table_is_exported_and_imported, a_word_is_respelled_in_the_plan_and_given_back])
def test_the_table_is_edited(studio: Studio, part: Callable[[Studio], None]) -> None:
    part(studio)


@pytest.mark.full
def test_a_malformed_respelling_is_refused_with_the_reason(studio: Studio) -> None:
    add(studio, "two words", "one")

    alert = studio.page.get_by_role("form", name="Pronunciations").get_by_role("alert")
    alert.wait_for()
    assert "word must be one word" in alert.inner_text()
    assert studio.page.get_by_label("Word").input_value() == "two words"
