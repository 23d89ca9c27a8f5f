"""What holds for every view: weight, speed, looks, access for everybody."""

from pathlib import Path

import httpx
import pytest

from dia_server.web.docs import STATIC
from tests.browser.conftest import OpenStudio
from tests.browser.studio import VIEWS, Studio
from tests.live.server import Server

WEIGHT = 150_000
"""Bytes of everything that the page can load."""
FIRST_PAINT_MS = 300
PHONE = {"width": 390, "height": 844}


def test_the_page_is_light() -> None:
    weight = sum(path.stat().st_size for path in (STATIC / "studio").rglob("*") if path.is_file())

    print(f"the page weighs {weight} bytes")
    assert weight < WEIGHT


def test_something_is_seen_at_once(open_studio: OpenStudio, server: Server) -> None:
    paints = []
    for _ in range(3):
        studio = open_studio(server.url)
        studio.until("performance.getEntriesByName('first-contentful-paint').length > 0")
        paints.append(
            studio.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        )

    print(f"first contentful paint after {', '.join(f'{paint:.0f}' for paint in paints)} ms")
    assert min(paints) < FIRST_PAINT_MS


def test_the_policy_allows_nothing_inline_and_no_other_host(server: Server) -> None:
    answer = httpx.get(server.url)

    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_no_accessibility_violation(
    open_studio: OpenStudio, furnished: Server, view: str, theme: str
) -> None:
    studio = open_studio(furnished.url, view, color_scheme=theme)
    if view == "speak":
        studio.speak()
    if view == "voices":
        studio.page.locator(".prompt").first.wait_for()
    if view == "jobs":
        studio.page.locator(".job").first.wait_for()
    if view == "server":
        studio.wait_for_text("Keep what is made")

    assert studio.accessibility_violations() == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits_a_phone(open_studio: OpenStudio, furnished: Server, view: str) -> None:
    studio = open_studio(furnished.url, view, viewport=PHONE, has_touch=True, is_mobile=True)
    if view == "speak":
        studio.speak()
    studio.page.wait_for_timeout(300)

    assert studio.width == PHONE["width"]
    assert studio.accessibility_violations() == []


def test_the_theme_follows_the_system_until_it_is_chosen(open_studio: OpenStudio, server: Server) -> None:
    studio = open_studio(server.url, color_scheme="dark")
    assert _brightness(studio) < 50
    toggle = studio.page.locator("#theme")
    toggle.click()
    assert _brightness(studio) > 200
    studio.page.reload()
    studio.page.locator("#say").wait_for()
    assert _brightness(studio) > 200
    toggle.click()
    assert _brightness(studio) < 50


def test_empty_views_say_what_to_do(open_studio: OpenStudio, server: Server, tmp_path: Path) -> None:
    with Server(tmp_path) as fresh:
        studio = open_studio(fresh.url, "jobs")
        studio.wait_for_text("Nothing in the queue")
        studio.page.get_by_role("link", name="Voices").click()
        studio.wait_for_text("No recordings yet.")
        studio.page.get_by_role("link", name="Speak", exact=True).click()
        studio.wait_for_text("What you make appears here")


def test_the_api_is_one_click_away(studio: Studio) -> None:
    for name, address in (("try it", "/docs"), ("read about it", "/redoc")):
        link = studio.page.get_by_role("link", name=name)
        assert link.get_attribute("href") == address
        assert httpx.get(studio.url + address).status_code == 200


def _brightness(studio: Studio) -> int:
    brightness: int = studio.page.evaluate(
        "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    )
    return brightness
