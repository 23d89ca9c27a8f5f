"""/docs and /redoc, under their Content-Security-Policies."""

from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import TAP
from tests.browser.studio import PATIENCE_MS
from tests.live.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("/docs", "Generate speech", id="swagger"),
        pytest.param("/redoc", "Speech", id="redoc", marks=pytest.mark.full),
    ],
)
def test_the_page_shows_the_api_without_policy_violations(
    browser: "Browser", server: Server, path: str, words: str
) -> None:
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script(path=TAP)
    page.goto(server.url + path)
    page.set_default_timeout(PATIENCE_MS)
    page.get_by_text(words).first.wait_for()
    if path == "/docs":
        page.locator("#operations-Speech-generate .opblock-summary-control").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        page.locator(".live-responses-table .response-col_status").first.wait_for()
    violations = page.evaluate("window.violations")
    page.close()

    assert violations == []
    assert errors == []
