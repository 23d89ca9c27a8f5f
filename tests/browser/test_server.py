import httpx

from tests.browser.studio import Studio


def test_health_and_statistics_are_shown(studio: Studio) -> None:
    studio.speak()
    studio.open("server")
    studio.wait_for_text("Preview (espeak-ng)")
    studio.wait_for_text("Speech made")
    assert studio.page.locator(".chart").count() >= 3
    first = studio.page.locator(".chart path").nth(1).get_attribute("d")
    # the charts go on by themselves
    studio.page.wait_for_timeout(2500)
    assert studio.page.locator(".chart path").nth(1).get_attribute("d") != first


def test_the_configuration_is_changed_with_the_form(studio: Studio) -> None:
    page = studio.page
    studio.open("server")
    page.get_by_label("Keep it for hours").fill("48")
    page.get_by_label("Log in detail").check()
    page.get_by_label("GPUs").select_option("single")
    page.locator("#save-config").click()
    studio.wait_for_text("next start: GPUs.")

    config = httpx.get(f"{studio.url}/config").json()
    assert (config["output_retention_hours"], config["debug_mode"], config["gpu_mode"]) == (
        48,
        True,
        "single",
    )


def test_a_value_out_of_its_limits_is_refused_by_name(studio: Studio) -> None:
    page = studio.page
    studio.open("server")
    hours = page.get_by_label("Keep it for hours")
    hours.evaluate("field => field.removeAttribute('max')")
    hours.fill("999999999")
    page.locator("#save-config").click()
    alert = page.locator(".config .trouble")
    alert.wait_for()
    assert alert.inner_text() == "Keep it for hours: at most 87600"
