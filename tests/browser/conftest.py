"""Chromium on the studio of a real server. Without Chromium, every test here is skipped."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.browser.chromium import CHROMIUM, FLAGS, TAP
from tests.browser.content import add_pronunciation, add_voice
from tests.browser.studio import PATIENCE_MS, OpenStudio, Studio
from tests.live.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STEADY = Path(__file__).parents[1] / "live" / "failing_server.py"


@pytest.fixture(scope="package")
def browser() -> "Iterator[Browser]":
    """The browser of this folder's tests, and of no others: while it runs, no event loop can be started."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A preview server without rate limits that most tests share."""
    with Server(
        tmp_path_factory.mktemp("studio"),
        rate_limit_generate=0,
        rate_limit_upload=0,
        rate_limit_jobs=0,
        auto_transcribe="false",
    ) as server:
        yield server


@pytest.fixture(scope="package")
def steady_server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a tone model at twice real time; see failing_server.py for special texts."""
    program = (sys.executable, str(STEADY), "serve")
    with Server(
        tmp_path_factory.mktemp("steady"),
        command=program,
        rate_limit_generate=0,
        rate_limit_jobs=0,
        shutdown_timeout=0,
    ) as server:
        yield server


@pytest.fixture(scope="package")
def furnished(server: Server) -> Server:
    """The shared server with a recording, a voice, a pronunciation and jobs, so that no view is empty."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        add_voice(client)
        add_pronunciation(client)
        for text in ("[S1] Chapter one. [S2] Already?", "The second chapter."):
            client.post("/generate?async_mode=true", json={"text": text}).raise_for_status()
    return server


@pytest.fixture
def open_studio(browser: "Browser") -> Iterator[OpenStudio]:
    """Return a function that opens a server's page in a new browser profile.

    When the test ends, the page must have raised no error, violated no rule of its Content-Security-Policy
    and sent no request to another host.
    """
    with ExitStack() as checks:

        def open_page(url: str, view: str = "speak", **context: Any) -> Studio:
            page = browser.new_context(permissions=["microphone"], **context).new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.add_init_script(path=TAP)
            errors: list[str] = []
            requests: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            checks.callback(_check, page, url, errors, requests)
            studio = Studio(page, url)
            studio.open(view)
            return studio

        yield open_page


def _check(page: "Page", url: str, errors: list[str], requests: list[str]) -> None:
    violations = page.evaluate("window.violations")
    page.unroute_all(behavior="ignoreErrors")  # an answer may be on its way
    page.context.close()
    assert errors == []
    assert violations == []
    assert [request for request in requests if not request.startswith((f"{url}/", f"blob:{url}/"))] == []


@pytest.fixture
def studio(open_studio: OpenStudio, server: Server) -> Studio:
    return open_studio(server.url)
