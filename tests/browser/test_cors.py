"""A page of another origin that asks the server for speech, as SillyTavern's "TTS WebUI" does."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.pages import site
from tests.live.server import Server
from tests.waiting import early_in_a_minute

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ASK = """async ({ url, body }) => {
    const answer = await fetch(url + "/v1/audio/speech", {
        method: "POST",
        headers: {
            "Content-Type": "application/json",
            "Cache-Control": "no-cache",
            "Authorization": "Bearer anything",
        },
        body: JSON.stringify(body),
    });
    const audio = new Uint8Array(await answer.arrayBuffer());
    return {
        status: answer.status,
        type: answer.headers.get("Content-Type"),
        seed: answer.headers.get("X-Seed"),
        engine: answer.headers.get("X-Engine"),
        retryAfter: answer.headers.get("Retry-After"),
        beginning: String.fromCharCode(...audio.slice(0, 4)),
        text: answer.ok ? "" : new TextDecoder().decode(audio),
    };
}"""
BODY = {"input": "Hello from a page.", "voice": "aria", "model": "dia", "seed": 7}


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with site() as origin:
        yield origin


@pytest.fixture
def page(browser: "Browser", origin: str) -> "Iterator[Page]":
    page = browser.new_page()
    page.goto(origin)
    yield page
    page.close()


def test_a_page_of_another_origin_gets_speech_and_reads_its_headers(page: "Page", server: Server) -> None:
    answer = page.evaluate(ASK, {"url": server.url, "body": BODY})

    assert (answer["status"], answer["type"], answer["beginning"]) == (200, "audio/wav", "RIFF")
    assert (answer["seed"], answer["engine"]) == ("7", "preview")


@pytest.mark.full
def test_it_may_have_another_name_of_this_machine(page: "Page", server: Server) -> None:
    with site("localhost") as other:  # beside 127.0.0.1, a page of another site
        page.goto(other)
        assert page.evaluate(ASK, {"url": server.url, "body": BODY})["seed"] == "7"


@pytest.mark.full
def test_it_reads_errors_too(page: "Page", server: Server) -> None:
    answer = page.evaluate(ASK, {"url": server.url, "body": BODY | {"voice": "nobody"}})

    assert answer["status"] == 404
    assert "nobody" in answer["text"]


def test_only_configured_origins_are_allowed_and_read_retry_after(
    page: "Page", origin: str, tmp_path: Path
) -> None:
    from playwright.sync_api import Error

    with (
        Server(tmp_path, cors_origins=f"http://localhost:8000,{origin}", rate_limit_generate=1) as server,
        site() as other,
    ):
        page.goto(other)
        with pytest.raises(Error, match="Failed to fetch"):
            page.evaluate(ASK, {"url": server.url, "body": BODY})
        assert "POST" not in server.log  # the preflight was refused
        page.goto(origin)
        early_in_a_minute(10)
        assert page.evaluate(ASK, {"url": server.url, "body": BODY})["seed"] == "7"
        refused = page.evaluate(ASK, {"url": server.url, "body": BODY})

    assert refused["status"] == 429
    assert int(refused["retryAfter"]) > 0
