import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.studio import Studio
from tests.each import each

if TYPE_CHECKING:
    from playwright.sync_api import Route


def health_and_statistics_are_shown(studio: Studio) -> None:
    studio.speak()
    studio.open("server")
    studio.wait_for_text("Preview (espeak-ng)")
    studio.wait_for_text("Speech made")
    assert studio.page.locator(".chart").count() >= 3
    first = studio.page.locator(".chart path").nth(1).get_attribute("d")
    studio.wait_until(lambda: studio.page.locator(".chart path").nth(1).get_attribute("d") != first)


def the_configuration_is_changed_with_the_form(studio: Studio) -> None:
    page = studio.page
    studio.open("server")
    page.get_by_label("Keep it for hours").fill("48")
    page.get_by_label("Log in detail").check()
    page.get_by_label("GPUs").select_option("single")
    page.locator("#save-config").click()
    studio.wait_for_text("next start: GPUs.")

    config = studio.get("/config").json()
    assert (config["output_retention_hours"], config["debug_mode"], config["gpu_mode"]) == (
        48,
        True,
        "single",
    )


def an_unloaded_model_is_reported(studio: Studio) -> None:
    studio.told(engine="dia", loading=0)
    studio.wait_for_text("The model is resting.")
    studio.open("server")
    studio.wait_for_text("resting, loaded when needed")


def loading_can_be_retried_after_a_failure(studio: Studio) -> None:
    health = studio.get("/health").json()
    loading = health | {"status": "loading", "loading": 7, "model_loaded": False, "retry": None}
    cause = "The checkpoint is not on this machine. Connect it, or set DIA_MODEL to a folder."
    refusal = {"detail": "The server is shutting down", "error_code": "MODEL_NOT_LOADED"}
    studio.told(status="unhealthy", engine="dia", error=cause, retry="/model/load")
    studio.wait_for_text(cause)
    assert studio.accessibility_violations() == []
    studio.page.route("**/model/load", lambda route: route.fulfill(status=503, json=refusal))
    studio.button("Try again").click()
    studio.wait_for_text("The server is shutting down")

    def load(route: "Route") -> None:
        studio.page.unroute("**/health")
        studio.page.route("**/health", lambda asked: asked.fulfill(json=loading))
        route.fulfill(status=202, json=loading)

    studio.page.unroute("**/model/load")
    studio.page.route("**/model/load", load)
    studio.button("Try again").click()
    studio.wait_for_text("7 %.")
    assert studio.page.evaluate("document.activeElement.id") == "main"
    studio.page.unroute("**/health")
    studio.wait_for_text("Preview voice.")  # as the server says


@each(
    "part",
    [
        health_and_statistics_are_shown,
        the_configuration_is_changed_with_the_form,
        an_unloaded_model_is_reported,
        loading_can_be_retried_after_a_failure,
    ],
)
def test_the_view_follows_the_server(studio: Studio, part: Callable[[Studio], None]) -> None:
    part(studio)


@pytest.mark.full
def test_few_points_fill_a_chart_which_shows_its_time_span(studio: Studio) -> None:
    studio.open("server")
    chart = studio.page.locator(".chart").first
    chart.get_by_text(re.compile(r"^[1-9]\d* s ago$")).wait_for()
    # read in one step: the next point changes all three
    width, line, told = chart.evaluate(
        """chart => [chart.querySelector("svg").viewBox.baseVal.width,
        chart.querySelectorAll("path")[1].getAttribute("d"), chart.querySelector(".axis").textContent]"""
    )

    assert line.startswith("M0 ")
    # the page rounds halves up, and SVG keeps 32-bit floats
    assert float(line.split("L")[-1].split()[0]) == pytest.approx(width, abs=1)
    assert float(told.split(" s ago")[0]) == pytest.approx(width / 1000, abs=0.51)


@pytest.mark.full
def test_an_overridden_variable_is_named_and_can_take_effect_again(studio: Studio) -> None:
    page = studio.page
    studio.put("/config", json={"auto_transcribe": True})  # DIA_AUTO_TRANSCRIBE is false
    studio.open("server")
    field = page.get_by_label("Let Whisper transcribe new recordings")
    assert field.is_checked()
    described: str = field.evaluate("field => field.ariaDescribedByElements[0].innerText")
    assert described.startswith("DIA_AUTO_TRANSCRIBE says otherwise")
    assert studio.accessibility_violations() == []
    page.get_by_label("Write texts to the log").check()  # is not saved yet
    studio.button("Use DIA_AUTO_TRANSCRIBE").click()
    studio.wait_for_text("DIA_AUTO_TRANSCRIBE holds again.")

    assert not field.is_checked()
    assert field.evaluate("field => field === document.activeElement")
    assert page.get_by_label("Write texts to the log").is_checked()
    assert page.locator("#save-config").is_enabled()
    assert not studio.button("Use DIA_AUTO_TRANSCRIBE").is_visible()
    assert studio.get("/config").json()["auto_transcribe"] is False


@pytest.mark.full
def test_a_value_out_of_range_is_refused_with_the_fields_name(studio: Studio) -> None:
    page = studio.page
    studio.open("server")
    hours = page.get_by_label("Keep it for hours")
    hours.evaluate("field => field.removeAttribute('max')")
    hours.fill("999999999")
    page.locator("#save-config").click()
    alert = page.locator(".config .trouble")
    alert.wait_for()
    assert alert.inner_text() == "Keep it for hours: the limit is 87600."
    hours.fill("24")
    assert not alert.is_visible()
