import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.studio import OpenStudio
from tests.live.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

LONG = " ".join(f"This is sentence number {i} of a very long story." for i in range(80))


@pytest.fixture(scope="module")
def slow_server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs one job at a time, so that others wait."""
    with Server(
        tmp_path_factory.mktemp("slow"),
        max_batch=2,
        rate_limit_generate=0,
        rate_limit_jobs=0,
        shutdown_timeout=0,
    ) as server:
        yield server


def test_a_job_is_queued_played_and_deleted(open_studio: OpenStudio, slow_server: Server) -> None:
    studio = open_studio(slow_server.url)
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


def test_a_waiting_job_can_be_cancelled(open_studio: OpenStudio, slow_server: Server) -> None:
    before = [submit(slow_server, LONG) for _ in range(12)]
    last = submit(slow_server, "Never mind.")
    studio = open_studio(slow_server.url, "jobs")
    job = studio.page.locator(f"[data-job='{last}']")
    job.get_by_role("button", name="Cancel").click()
    studio.answer("Cancel the job")
    job.get_by_text("cancelled").wait_for()

    assert slow_server.get(f"/jobs/{last}").json()["status"] == "cancelled"
    for waiting in reversed(before):  # so that the tests that follow have the server to themselves
        slow_server.delete(f"/jobs/{waiting}")


def test_running_jobs_show_their_progress(open_studio: OpenStudio, steady_server: Server) -> None:
    studio = open_studio(steady_server.url, "jobs")
    jobs = [submit(steady_server, f"Number {i}. Hold progress.") for i in range(5)]
    rows = [studio.page.locator(f"[data-job='{job}']") for job in jobs]
    for row in rows:
        row.get_by_text("being made · ").wait_for()
        assert row.get_by_role("progressbar").is_visible()
    release(steady_server, "progress")
    for row in rows:
        row.get_by_text("ready").wait_for()
        assert "%" not in row.inner_text()
        assert not row.get_by_role("progressbar").is_visible()


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


def test_the_cause_of_a_failure_is_shown(open_studio: OpenStudio, steady_server: Server) -> None:
    studio = open_studio(steady_server.url, "jobs")
    row = studio.page.locator(f"[data-job='{submit(steady_server, 'I fail.')}']")
    row.get_by_role("alert").get_by_text("The model has failed").wait_for()


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


def test_finished_jobs_are_cleared_at_once(open_studio: OpenStudio, steady_server: Server) -> None:
    texts = ("I fail.", "Never mind.", "Go on and on.")
    failed, gone, running = (submit(steady_server, text) for text in texts)
    steady_server.delete(f"/jobs/{gone}")
    studio = open_studio(steady_server.url, "jobs")
    rows = {job: studio.page.locator(f"[data-job='{job}']") for job in (failed, gone, running)}
    rows[failed].get_by_text("failed", exact=True).wait_for()
    refusal = {"detail": "The disk is full", "error_code": "STORAGE_UNAVAILABLE"}
    studio.page.route(f"**/jobs/{failed}", lambda route: route.fulfill(status=503, json=refusal))
    studio.button("Clear finished jobs").click()
    studio.answer("No, keep them")
    studio.button("Clear finished jobs").click()
    studio.answer("Delete them")
    studio.page.get_by_role("alert").get_by_text(
        re.compile(r"^Not deleted: 1 of \d+\. The disk is full")
    ).wait_for()
    rows[gone].wait_for(state="detached")
    assert rows[failed].is_visible()
    studio.page.unroute(f"**/jobs/{failed}")
    studio.button("Clear finished jobs").click()
    studio.answer("Delete it")
    studio.wait_for_text("1 finished job deleted.")
    rows[failed].wait_for(state="detached")

    assert rows[running].is_visible()
    assert not studio.button("Clear finished jobs").is_visible()
    studio.until("document.activeElement.ariaLabel === 'Cancel “Go on and on.”'")
    steady_server.delete(f"/jobs/{running}")


@pytest.mark.full
def test_the_faults_of_a_result_are_shown(open_studio: OpenStudio, slow_server: Server) -> None:
    studio = open_studio(slow_server.url)

    def with_faults(route: "Route") -> None:
        jobs = route.fetch().json()["jobs"]
        route.fulfill(json={"jobs": [job | {"faults": ["cut_off", "new_here"]} for job in jobs]})

    studio.page.route("**/jobs?*", with_faults)
    job = submit(slow_server, "The end is")
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
def test_a_server_without_jobs_is_reported(open_studio: OpenStudio, slow_server: Server) -> None:
    studio = open_studio(slow_server.url)
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
