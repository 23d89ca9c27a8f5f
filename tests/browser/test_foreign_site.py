"""A page of a foreign site attacks a server in its visitor's network.

Its name leads to this machine, as after DNS rebinding: the same attempts are made by a page of another
origin, and by one whose name has been made to lead to the server itself.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.browser.chromium import PUBLIC_NAME
from tests.browser.content import add_voice
from tests.browser.pages import site
from tests.live.server import Server
from tests.recordings import wav_file

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ATTEMPTS = (Path(__file__).parent / "foreign.js").read_text()
PLANTED = {"fetched", "unseen", "dropped", "submitted", "sandboxed"}
"""Audio prompts that exist if attempts have succeeded; `dropped` is a file for /audio_prompts/discover."""
LOAD = """([name, policy, url]) => new Promise((resolve) => {
  document.head.append(Object.assign(document.createElement("meta"), { name: "referrer", content: policy }));
  const element = document.createElement(name);
  element.onload = element.onerror = element.oncanplaythrough = resolve;
  element.src = url;
})"""
"""Loads a URL by an element of a page with this referrer policy."""
WAYS = pytest.mark.parametrize("rebinding", [False, True], ids=["another origin", "rebinding"])


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("usual"), rate_limit_upload=0, auto_transcribe="false") as server:
        yield server


@pytest.fixture(scope="module")
def wide_open(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(
        tmp_path_factory.mktemp("open"),
        rate_limit_upload=0,
        auto_transcribe="false",
        cors_origins="*",
        allowed_hosts="*",
    ) as server:
        yield server


@WAYS
def test_a_foreign_page_reads_and_changes_nothing(
    browser: "Browser", usual: Server, *, rebinding: bool
) -> None:
    furnish(usual)
    ended = attack(browser, usual, rebinding=rebinding)

    seen = {name: end for name, end in ended.items() if end != "sent"}
    assert len(seen) >= 8
    assert all(end.startswith("refused") for end in seen.values()), seen
    # an attempt whose result the page cannot see may have changed the server
    assert changes(usual) == set()


@pytest.mark.full
@WAYS
def test_it_succeeds_where_all_hosts_and_origins_are_allowed(
    browser: "Browser", wide_open: Server, *, rebinding: bool
) -> None:
    furnish(wide_open)
    ended = attack(browser, wide_open, rebinding=rebinding)

    assert set(ended.values()) == {"done", "sent"}, ended
    assert changes(wide_open) == PLANTED | {"the configuration", "the voice"}


def test_an_element_of_a_foreign_page_generates_no_preview(browser: "Browser", usual: Server) -> None:
    assert "x-ratelimit-limit" in preview_after_elements(browser, usual).headers, "only a new preview counts"


@pytest.mark.full
def test_it_generates_one_where_all_hosts_and_origins_are_allowed(
    browser: "Browser", wide_open: Server
) -> None:
    assert "x-ratelimit-limit" not in preview_after_elements(browser, wide_open).headers


def preview_after_elements(browser: "Browser", server: Server) -> httpx.Response:
    """Get a preview that elements of a foreign page have asked for before."""
    url = f"{server.url}/voices/aria/preview"
    with site(PUBLIC_NAME) as foreign, closing(browser.new_page()) as page:
        page.goto(f"{foreign}/health")
        for element in ("img", "audio"):
            for policy in ("no-referrer", "unsafe-url"):
                # with a query, because the browser would answer the second request from its cache
                page.evaluate(LOAD, [element, policy, f"{url}?{element}-{policy}"])
    answer = httpx.get(url, timeout=60)
    assert answer.status_code == 200
    return answer


def attack(browser: "Browser", server: Server, *, rebinding: bool) -> dict[str, str]:
    """Make all attempts from a foreign page; return how each ended: done, refused, or sent (unseen)."""
    # a page that uses DNS rebinding is not bound by the policy of the server's own pages
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    with site(PUBLIC_NAME) as foreign:
        if rebinding:
            foreign = f"http://{PUBLIC_NAME}:{server.port}"
        page.goto(f"{foreign}/health")
        ended: dict[str, str] = page.evaluate(ATTEMPTS, foreign if rebinding else server.url)
    context.close()
    return ended


def furnish(server: Server) -> None:
    """Add a recording, a voice, a job and a file to discover; delete what earlier attempts have planted."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        client.put("/config", json={"output_retention_hours": 24}).raise_for_status()
        for name in PLANTED:
            client.delete(f"/audio_prompts/{name}")
        add_voice(client)
        client.post("/generate?async_mode=true", json={"text": "A secret."}).raise_for_status()
    (server.data_dir / "audio_prompts" / "dropped.wav").write_bytes(wav_file(1.0))


def changes(server: Server) -> set[str]:
    """Return what the attempts have changed."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        prompts = {prompt["prompt_id"] for prompt in client.get("/audio_prompts").json()["audio_prompts"]}
        changed = prompts & PLANTED
        if client.get("/config").json()["output_retention_hours"] != 24:
            changed.add("the configuration")
        if "grandmother" not in client.get("/voice_mappings").text:
            changed.add("the voice")
        return changed
