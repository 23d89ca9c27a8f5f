"""All views: weight, Content-Security-Policy, accessibility, small screens, themes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dia_server.web.controllers.docs import PAGES, STATIC
from tests.browser.studio import VIEWS, OpenStudio, Studio
from tests.each import each
from tests.live.server import Server

WEIGHT = 167_000
"""Maximum bytes of all files that the page can load."""
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def test_the_page_is_light() -> None:
    files = [PAGES / "studio.html", *(STATIC / "studio").rglob("*.*")]
    weight = sum(path.stat().st_size for path in files)

    print(f"the page weighs {weight} bytes")
    assert weight < WEIGHT


def test_the_policy_allows_nothing_inline_and_no_other_host(server: Server) -> None:
    answer = server.get("/")

    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    "context",
    [
        pytest.param({"color_scheme": "light"}, id="light"),
        pytest.param({"color_scheme": "dark"}, id="dark", marks=pytest.mark.full),
        pytest.param(PHONE, id="phone", marks=pytest.mark.full),
    ],
)
def test_no_view_has_an_accessibility_violation(
    open_studio: OpenStudio, furnished: Server, context: dict[str, Any]
) -> None:
    studio = open_studio(furnished.url, **context)
    for view in VIEWS:
        studio.open(view)
        _fill(studio, view)

        assert studio.accessibility_violations() == [], view


def test_all_views_fit_a_phone(open_studio: OpenStudio, furnished: Server) -> None:
    studio = open_studio(furnished.url, **PHONE)
    for view in VIEWS:
        studio.open(view)
        _fill(studio, view)

        assert studio.width == 390, view


@pytest.mark.full
def test_the_player_is_scrolled_into_view_on_a_phone(open_studio: OpenStudio, server: Server) -> None:
    studio = open_studio(server.url, **PHONE)
    bounds = "document.getElementById('stage').getBoundingClientRect()"
    studio.write(*["One more."] * 6)
    studio.page.evaluate("scrollTo(0, 0)")
    assert studio.page.evaluate(f"{bounds}.top > innerHeight")
    studio.page.locator("#say").evaluate("button => button.click()")  # Playwright's click would scroll to it

    studio.until(f"{bounds}.bottom <= innerHeight")


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


@pytest.mark.full
def test_the_page_works_without_storage(open_studio: OpenStudio, server: Server) -> None:
    studio = open_studio(server.url)
    studio.page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, { get() { throw new DOMException('no') } })"
    )
    studio.page.reload()
    studio.page.locator("#theme").click()
    assert studio.page.evaluate("document.documentElement.dataset.theme") == "light"
    studio.write("Keep nothing.")
    studio.speak()


LIMITS = [
    ("/generate", "DIA_RATE_LIMIT_GENERATE"),
    ("/generate?async_mode=true", "DIA_RATE_LIMIT_GENERATE"),
    ("/audio_prompts/upload", "DIA_RATE_LIMIT_UPLOAD"),
    ("/jobs?limit=50", "DIA_RATE_LIMIT_JOBS"),
    ("/jobs/1/result", "DIA_RATE_LIMIT_JOBS"),
]
"""Paths, and the setting of each one's limit."""
ERRORS: list[tuple[dict[str, Any], str]] = [
    (
        {"error_code": "INVALID_VOICE_ID", "param": "voice_id", "detail": "Voice 'x' does not exist"},
        "This voice does not exist any more. Choose another one.",
    ),
    (
        {"error_code": "AUDIO_PROCESSING_ERROR", "param": "audio_file", "detail": "the audio is silent"},
        "The recording cannot be used. The server says: the audio is silent",
    ),
    (
        {"error_code": "VALIDATION_ERROR", "param": "worker_count", "limit": 64, "detail": "<= 64"},
        "Models at the same time: the limit is 64.",
    ),
    (
        {"error_code": "VALIDATION_ERROR", "param": "transcript", "detail": "no words"},
        "The transcript is not valid. The server says: no words",
    ),
    (
        {"error_code": "PAYLOAD_TOO_LARGE", "limit": 2**20, "detail": "-"},
        "Too large: the limit is 1 MiB.",
    ),
    (
        {"error_code": "TEXT_TOO_LONG", "param": "text", "limit": 4096, "detail": "-"},
        "The text is too long: the limit is 4096 characters.",
    ),
    ({"error_code": "WHISPER_NOT_AVAILABLE", "detail": "no file"}, "no file"),
]
"""Errors of the server, and what the page tells."""


def a_rate_limit_is_reported_with_its_setting(studio: Studio, path: str, setting: str) -> None:
    headers = {"Retry-After": "7", "X-RateLimit-Limit": "10"}
    studio.page.route(
        lambda url: url.endswith(path), lambda route: route.fulfill(status=429, headers=headers)
    )
    ask = "import('/static/studio/js/api.js').then(({ get }) => get(path)).catch((error) => error.message)"

    told = studio.page.evaluate(f"path => {ask}", path)
    assert told.endswith(f"try again in 7 s. At home, start it with {setting}=0.")


def an_error_is_explained_by_its_code_field_and_limit(
    studio: Studio, error: dict[str, Any], text: str
) -> None:
    explain = "error => import('/static/studio/js/words.js').then(({ explain }) => explain(error))"

    assert studio.page.evaluate(explain, error) == text


@each(
    ("part", "case"),
    [
        *((a_rate_limit_is_reported_with_its_setting, case) for case in LIMITS),
        *((an_error_is_explained_by_its_code_field_and_limit, case) for case in ERRORS),
    ],
)
def test_a_refusal_is_explained(studio: Studio, part: Callable[..., None], case: tuple[Any, str]) -> None:
    part(studio, *case)


@pytest.mark.full
def test_empty_views_say_what_to_do(open_studio: OpenStudio, server: Server, tmp_path: Path) -> None:
    with Server(tmp_path) as fresh:
        studio = open_studio(fresh.url, "jobs")
        studio.wait_for_text("Nothing in the queue")
        studio.page.get_by_role("link", name="Voices").click()
        studio.wait_for_text("No recordings yet.")
        studio.page.get_by_role("link", name="Speak", exact=True).click()
        studio.wait_for_text("What you make appears here")


@pytest.mark.full
def test_the_api_is_one_click_away(studio: Studio) -> None:
    for name, address in (("try it", "/docs"), ("read about it", "/redoc")):
        link = studio.page.get_by_role("link", name=name)
        assert link.get_attribute("href") == address
        assert studio.get(address).status_code == 200


def _fill(studio: Studio, view: str) -> None:
    """Wait until `view` shows what the server has."""
    match view:
        case "speak":
            studio.speak()
        case "voices":
            studio.page.locator(".prompt").first.wait_for()
        case "jobs":
            studio.page.locator(".job").first.wait_for()
        case "server":
            studio.wait_for_text("Keep what is made")


def _brightness(studio: Studio) -> int:
    brightness: int = studio.page.evaluate(
        "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    )
    return brightness
