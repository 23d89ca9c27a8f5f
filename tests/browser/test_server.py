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


def test_few_points_fill_a_chart_and_its_time_is_told(studio: Studio) -> None:
    studio.open("server")
    chart = studio.page.locator(".chart").first
    chart.get_by_text("4 s ago").wait_for()
    width = str(chart.locator("svg").get_attribute("viewBox")).split()[2]
    line = str(chart.locator("path").nth(1).get_attribute("d"))

    assert line.startswith("M0 ")
    assert line.split("L")[-1].startswith(f"{float(width):.0f} ")


def test_a_model_that_left_the_memory_is_told_in_words(studio: Studio) -> None:
    resting = httpx.get(f"{studio.url}/health").json() | {"engine": "dia", "loading": 0}
    studio.page.route("**/health", lambda route: route.fulfill(json=resting))
    studio.page.reload()
    studio.wait_for_text("The model is resting.")
    studio.open("server")
    studio.wait_for_text("resting, loaded when needed")


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
