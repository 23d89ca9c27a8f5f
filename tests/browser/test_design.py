"""*Design a voice*, with a fake Dia behind the page."""

import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.studio import OpenStudio, Studio
from tests.each import each
from tests.live import cloning_server
from tests.live.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def cloning(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(
        tmp_path_factory.mktemp("design"),
        command=(sys.executable, cloning_server.__file__, "serve"),
        rate_limit_generate=0,
        rate_limit_jobs=0,
    ) as server:
        yield server


@pytest.fixture
def design(open_studio: OpenStudio, cloning: Server) -> Studio:
    return open_studio(cloning.url, "voices")


def rows(studio: Studio) -> "Locator":
    return studio.page.locator(".candidate")


def make(studio: Studio, *, count: int, name: str = "", voice: str = "A new voice", style: str = "") -> None:
    form = studio.page.get_by_role("form", name="Design a voice")
    form.get_by_label("Voice", exact=True).select_option(label=voice)
    if name:
        form.get_by_label("Display name").fill(name)
    if style:
        form.get_by_label("Show first").select_option(label=style)
    form.get_by_label("How many").fill(str(count))
    studio.button("Make candidates").click()


def ready(studio: Studio) -> None:
    studio.wait_for_text("All are ready.")


def a_new_voice_needs_a_name_and_a_number_of_candidates(design: Studio) -> None:
    make(design, count=2)
    design.wait_for_text("Give the new voice a name.")
    make(design, count=9, name="Nine")
    design.wait_for_text("Choose between 1 and 8 candidates.")

    assert "nine" not in design.get("/voice_mappings").json()


def a_new_voice_is_designed_heard_kept_and_named(design: Studio) -> None:
    make(design, count=3, name="Бабушка", style="Deep voices")
    ready(design)
    pitches = [int(found) for found in re.findall(r"(\d+) Hz", design.text(".candidates"))]
    assert len(pitches) == 3
    assert pitches == sorted(pitches)
    first = rows(design).first
    first.get_by_role("button", name="Play the candidate").click()
    design.until("window.heard.seconds > 1")
    first.get_by_role("button", name="Keep the candidate").click()
    design.wait_for_text("Бабушка sounds like this from now on.")
    first.get_by_text("the voice now").wait_for()

    (voice,) = [one for one in design.get("/voices").json()["voices"] if one["name"] == "Бабушка"]
    assert round(voice["anchor"]["pitch"]) == pitches[0]
    assert re.fullmatch(r"voice(_\d+)?", voice["voice_id"])
    design.button("Try Бабушка").wait_for()
    assert design.accessibility_violations() == []


def candidates_are_shown_while_they_are_made_and_after_a_reload(design: Studio) -> None:
    make(design, count=2, voice="Kai")
    rows(design).first.get_by_text("being made").wait_for()
    assert design.accessibility_violations() == []
    ready(design)
    design.page.reload()
    design.page.get_by_label("Voice", exact=True).select_option(label="Kai")
    ready(design)

    assert rows(design).count() == 2


@each(
    "part",
    [
        a_new_voice_needs_a_name_and_a_number_of_candidates,
        a_new_voice_is_designed_heard_kept_and_named,
        candidates_are_shown_while_they_are_made_and_after_a_reload,
    ],
)
def test_a_voice_is_designed(design: Studio, part: Callable[[Studio], None]) -> None:
    part(design)


@pytest.mark.full
def test_making_them_can_be_cancelled(design: Studio) -> None:
    make(design, count=8, voice="Nova")
    design.page.locator(".design").get_by_role("button", name="Cancel").click()
    design.wait_for_text("The candidates are cancelled.")

    assert design.get("/voices/nova/candidates").json() == {"candidates": []}
    assert rows(design).count() == 0


@pytest.mark.full
def test_a_built_in_voice_gets_a_name_when_a_candidate_is_kept(design: Studio) -> None:
    make(design, count=1, voice="Luna", name="Moon")
    ready(design)
    design.page.get_by_role("button", name="Keep the candidate").click()
    design.wait_for_text("Moon sounds like this from now on.")

    mapping = design.get("/voice_mappings").json()["luna"]
    assert (mapping["display_name"], mapping["style"], mapping["partner"]) == ("Moon", "expressive", "kai")


@pytest.mark.full
def test_it_fits_a_phone(open_studio: OpenStudio, cloning: Server) -> None:
    studio = open_studio(cloning.url, "voices", **PHONE)
    make(studio, count=2, voice="Zara")
    ready(studio)

    assert studio.width == PHONE["viewport"]["width"]
    assert studio.accessibility_violations() == []


@pytest.mark.full
def test_the_preview_engine_says_why_not(studio: Studio) -> None:
    studio.open("voices")
    studio.wait_for_text("Voices are designed with Dia, which needs a GPU.")

    assert studio.button("Make candidates").is_disabled()
