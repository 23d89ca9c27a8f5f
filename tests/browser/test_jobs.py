from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.browser.conftest import OpenStudio
from tests.live.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LONG = " ".join(f"This is sentence number {i} of a very long story." for i in range(80))


@pytest.fixture(scope="module")
def slow_server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that makes one job at a time, so that others wait."""
    with Server(
        tmp_path_factory.mktemp("slow"), max_batch=2, rate_limit_generate=0, rate_limit_jobs=0
    ) as server:
        yield server


def test_a_job_is_queued_made_played_and_deleted(open_studio: OpenStudio, slow_server: Server) -> None:
    studio = open_studio(slow_server.url)
    page = studio.page
    studio.write("A job for later.", "(sighs) Now is later.")
    page.get_by_role("button", name="Make as a job").click()
    job = page.locator(".job").filter(has_text="A job for later.")
    job.get_by_role("button", name="Play").click()
    studio.until("window.heard.seconds > 0.5")
    with page.expect_download() as saved:
        job.get_by_role("button", name="Download").click()
    assert saved.value.path().stat().st_size > 1000
    job.get_by_role("button", name="Delete").click()
    studio.wait_for_text("The job is deleted.")
    job.wait_for(state="detached")


def test_a_job_that_waits_is_cancelled(open_studio: OpenStudio, slow_server: Server) -> None:
    for _ in range(12):
        httpx.post(f"{slow_server.url}/generate?async_mode=true", json={"text": LONG})
    last = httpx.post(f"{slow_server.url}/generate?async_mode=true", json={"text": "Never mind."}).json()[
        "job_id"
    ]
    studio = open_studio(slow_server.url, "jobs")
    job = studio.page.locator(f"[data-job='{last}']")
    job.get_by_role("button", name="Cancel").click()
    job.get_by_text("cancelled").wait_for()

    assert httpx.get(f"{slow_server.url}/jobs/{last}").json()["status"] == "cancelled"


def test_progress_is_shown_while_a_job_is_made(open_studio: OpenStudio, slow_server: Server) -> None:
    studio = open_studio(slow_server.url, "jobs")
    for _ in range(6):
        httpx.post(f"{slow_server.url}/generate?async_mode=true", json={"text": LONG})
    studio.page.locator(".job .bar[aria-valuenow]:visible").first.wait_for()
    studio.page.get_by_text("completed").first.wait_for()


def test_a_server_without_jobs_is_told_in_words(open_studio: OpenStudio, slow_server: Server) -> None:
    studio = open_studio(slow_server.url)
    refusal = {"detail": "Nothing here", "error_code": "NOT_FOUND"}
    studio.page.route("**/jobs?*", lambda route: route.fulfill(status=404, json=refusal))
    studio.open("jobs")
    studio.wait_for_text("This server does not keep jobs.")
