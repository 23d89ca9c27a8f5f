"""Jobs, and speech that is stopped while it is made: what needs a server whose speech lasts."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.studio import OpenStudio, Studio
from tests.each import each
from tests.live.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Route

LONG = " ".join(f"This is sentence number {i} of a very long story." for i in range(80))


@pytest.fixture
def open_jobs(open_studio: OpenStudio, steady_server: Server) -> Studio:
    return open_studio(steady_server.url, "jobs")


def test_a_job_is_queued_played_and_deleted(open_studio: OpenStudio, server: Server) -> None:
    studio = open_studio(server.url)
    page = studio.page
    studio.write("A job for later.", "(sighs) Now is later.", *["And it takes a while to say."] * 3)
    page.get_by_role("button", name="Make as a job").click()
    job = page.locator(".job").filter(has_text="A job for later.")
    job.get_by_role("button", name="Play “A job for later. (sighs) Now is later. ").click()
    job.get_by_role("button", name="Pause “A job for later.").wait_for()
    studio.until("window.heard.seconds > 0.5")
    assert job.get_by_role("button").count() == 3
    assert "Aria · MP3 · 0:0" in job.inner_text()
    with page.expect_download() as saved:
        job.get_by_role("button", name="Download").click()
    assert saved.value.path().stat().st_size > 1000
    job.get_by_role("button", name="Delete").click()
    studio.answer("No, keep it")
    job.get_by_role("button", name="Delete").click()
    studio.answer("Delete it")
    studio.wait_for_text("The job is deleted.")
    job.wait_for(state="detached")


def a_waiting_job_can_be_cancelled(jobs: Studio, steady_server: Server) -> None:
    before = [submit(steady_server, "Hold cancel.") for _ in range(12)]
    last = submit(steady_server, "Never mind.")
    job = jobs.page.locator(f"[data-job='{last}']")
    job.get_by_role("button", name="Cancel").click()
    jobs.answer("Cancel the job")
    job.get_by_text("cancelled").wait_for()

    assert steady_server.get(f"/jobs/{last}").json()["status"] == "cancelled"
    for waiting in reversed(before):  # so that the parts that follow have the server to themselves
        steady_server.delete(f"/jobs/{waiting}")


def running_jobs_show_their_progress(jobs: Studio, steady_server: Server) -> None:
    submitted = [submit(steady_server, f"Number {i}. Hold progress.") for i in range(5)]
    rows = [jobs.page.locator(f"[data-job='{job}']") for job in submitted]
    for row in rows:
        row.get_by_text("being made · ").wait_for()
        assert row.get_by_role("progressbar").is_visible()
    release(steady_server, "progress")
    for row in rows:
        row.get_by_text("ready").wait_for()
        assert "%" not in row.inner_text()
        assert not row.get_by_role("progressbar").is_visible()


def the_cause_of_a_failure_is_shown(jobs: Studio, steady_server: Server) -> None:
    row = jobs.page.locator(f"[data-job='{submit(steady_server, 'I fail.')}']")
    row.get_by_role("alert").get_by_text("The model has failed").wait_for()


def finished_jobs_are_cleared_at_once(jobs: Studio, steady_server: Server) -> None:
    texts = ("I fail.", "Never mind.", "Go on and on.")
    failed, gone, running = (submit(steady_server, text) for text in texts)
    steady_server.delete(f"/jobs/{gone}")
    rows = {job: jobs.page.locator(f"[data-job='{job}']") for job in (failed, gone, running)}
    rows[failed].get_by_text("failed", exact=True).wait_for()
    refusal = {"detail": "The disk is full", "error_code": "STORAGE_UNAVAILABLE"}
    jobs.page.route(f"**/jobs/{failed}", lambda route: route.fulfill(status=503, json=refusal))
    jobs.button("Clear finished jobs").click()
    jobs.answer("No, keep them")
    jobs.button("Clear finished jobs").click()
    jobs.answer("Delete them")
    jobs.page.get_by_role("alert").get_by_text(
        re.compile(r"^Not deleted: 1 of \d+\. The disk is full")
    ).wait_for()
    rows[gone].wait_for(state="detached")
    assert rows[failed].is_visible()
    jobs.page.unroute(f"**/jobs/{failed}")
    jobs.button("Clear finished jobs").click()
    jobs.answer("Delete it")
    jobs.wait_for_text("1 finished job deleted.")
    rows[failed].wait_for(state="detached")

    assert rows[running].is_visible()
    assert not jobs.button("Clear finished jobs").is_visible()
    jobs.until("document.activeElement.ariaLabel === 'Cancel “Go on and on.”'")
    steady_server.delete(f"/jobs/{running}")


@each(
    "part",
    [
        a_waiting_job_can_be_cancelled,
        running_jobs_show_their_progress,
        the_cause_of_a_failure_is_shown,
        finished_jobs_are_cleared_at_once,
    ],
)
def test_jobs_are_followed(
    open_jobs: Studio, steady_server: Server, part: Callable[[Studio, Server], None]
) -> None:
    part(open_jobs, steady_server)


def test_stopping_ends_playback_and_keeps_the_audio(open_studio: OpenStudio, steady_server: Server) -> None:
    studio = open_studio(steady_server.url)
    studio.write("It goes on and on.")
    studio.page.locator("#say").click()
    studio.until("window.heard.seconds > 0.5")
    studio.button("Stop").click()
    studio.wait_for_text("Stopped.")
    studio.wait_for_silence()

    heard = studio.heard["seconds"]
    studio.button("Play").click()
    studio.until(f"window.heard.seconds > {heard + 0.3}")


@pytest.mark.full
def test_the_focus_stays_while_jobs_are_added_and_completed(
    open_studio: OpenStudio, steady_server: Server
) -> None:
    mine = submit(steady_server, "Hold focus.")
    studio = open_studio(steady_server.url, "jobs")
    row = studio.page.locator(f"[data-job='{mine}']")
    row.get_by_role("button", name="Cancel “Hold focus.”").focus()
    submit(steady_server, "One more.")
    release(steady_server, "focus")
    row.get_by_text("ready").wait_for()
    studio.wait_for_text("One more.")

    assert studio.page.evaluate("document.activeElement.ariaLabel") == "Delete “Hold focus.”"


@pytest.mark.full
def test_a_late_answer_does_not_bring_a_deleted_job_back(
    open_studio: OpenStudio, steady_server: Server
) -> None:
    job = submit(steady_server, "Never mind.")
    steady_server.delete(f"/jobs/{job}")
    studio = open_studio(steady_server.url, "jobs")
    row = studio.page.locator(f"[data-job='{job}']")
    row.wait_for()
    held: list[Route] = []
    studio.page.route("**/jobs?*", lambda route: route.continue_() if held else held.append(route))
    studio.wait_until(lambda: held)
    with_the_job = held[0].fetch().json()
    row.get_by_role("button", name="Delete").click()
    studio.answer("Delete it")
    row.wait_for(state="detached")
    held[0].fulfill(json=with_the_job)
    studio.page.wait_for_timeout(500)

    assert row.count() == 0


@pytest.mark.full
def test_the_faults_of_a_result_are_shown(open_studio: OpenStudio, server: Server) -> None:
    studio = open_studio(server.url)

    def with_faults(route: "Route") -> None:
        jobs = route.fetch().json()["jobs"]
        route.fulfill(json={"jobs": [job | {"faults": ["cut_off", "new_here"]} for job in jobs]})

    studio.page.route("**/jobs?*", with_faults)
    job = submit(server, "The end is")
    studio.open("jobs")
    studio.page.locator(f"[data-job='{job}']").get_by_text("the end may be cut off · new_here").wait_for()


@pytest.mark.full
def test_a_long_text_is_cut_at_a_word(open_studio: OpenStudio, steady_server: Server) -> None:
    job = submit(steady_server, LONG)
    studio = open_studio(steady_server.url, "jobs")
    shown = studio.page.locator(f"[data-job='{job}'] .text").inner_text()

    assert shown.endswith("…")
    assert re.match(re.escape(shown[:-1]) + r"\W", LONG)


@pytest.mark.full
def test_a_hidden_page_sends_no_requests(open_studio: OpenStudio, steady_server: Server) -> None:
    studio = open_studio(steady_server.url, "jobs")
    asked: list[str] = []
    studio.page.on("request", lambda request: asked.append(request.url))
    see = """seen => { Object.defineProperty(document, "hidden", { value: !seen, configurable: true });
        document.dispatchEvent(new Event("visibilitychange")) }"""
    studio.page.evaluate(see, False)
    asked.clear()  # sent before the page was hidden
    studio.page.wait_for_timeout(3500)
    assert asked == []
    studio.page.evaluate(see, True)
    studio.wait_until(lambda: {url.split("/")[3].split("?")[0] for url in asked} == {"jobs", "health"})


@pytest.mark.full
def test_a_server_without_jobs_is_reported(open_studio: OpenStudio, server: Server) -> None:
    studio = open_studio(server.url)
    refusal = {"detail": "Nothing here", "error_code": "NOT_FOUND"}
    studio.page.route("**/jobs?*", lambda route: route.fulfill(status=404, json=refusal))
    studio.open("jobs")
    studio.wait_for_text("This server does not keep jobs.")


def release(server: Server, name: str) -> None:
    """Let the engine of `steady_server` go on with the texts held under `name`."""
    (server.data_dir / name).touch()


def submit(server: Server, text: str) -> str:
    answer = server.post("/generate?async_mode=true", json={"text": text})
    job_id: str = answer.raise_for_status().json()["job_id"]
    return job_id
