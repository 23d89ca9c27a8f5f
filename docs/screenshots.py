"""Make docs/images/*.png from the real page: `python -m docs.screenshots`.

A preview server with a few voices, recordings and jobs is started, and every view is photographed, light and
dark, on a desktop and on a phone.
"""

import shutil
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.live.server import Server

IMAGES = Path(__file__).parent / "images"
SCREENS = {
    "desktop": {"viewport": {"width": 1360, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
VIEWS = ("speak", "voices", "jobs", "server")
MEMORIES = "When I was young we had no television. We had a stove, and stories, and a dog who ran the house."
BUSY = """text => { for (let i = 0; i < 3; i++) fetch("/generate", {
  method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({text})
}) }"""
JOBS = (
    "[S1] Good evening, and welcome to the late news. [S2] Good evening. Tonight: a whale in the harbour.",
    "[S1] Chapter two. [S2] Already? (laughs) [S1] I read fast.",
    "[S1] The lighthouse keeper had not spoken to anyone for eleven days. [S2] (sighs) Twelve, he would say.",
)


def main() -> None:
    chromium = shutil.which("chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder), rate_limit_generate=0, rate_limit_jobs=0, auto_transcribe="false") as server,
        sync_playwright() as playwright,
    ):
        furnish(server.url)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for theme in ("light", "dark"):
            for screen in SCREENS:
                photograph(browser, server.url, theme, screen)
        browser.close()


def furnish(url: str) -> None:
    """Give the server something to show."""
    with httpx.Client(base_url=url, timeout=60) as client:
        for voice_id, speaker in (("grandmother", "zara"), ("old_sailor", "atlas")):
            audio = client.post("/generate", json={"text": MEMORIES, "voice_id": speaker}).content
            client.post(
                "/audio_prompts/upload",
                data={"prompt_id": voice_id},
                files={"audio_file": ("sample.wav", audio)},
            ).raise_for_status()
            client.put(f"/audio_prompts/{voice_id}/transcript", json={"transcript": MEMORIES})
            client.post(
                "/voice_mappings", json={"voice_id": voice_id, "style": "recorded", "audio_prompt": voice_id}
            )
        for text in JOBS:
            client.post("/generate?async_mode=true", json={"text": text, "response_format": "mp3"})


def photograph(browser: Browser, url: str, theme: str, screen: str) -> None:
    context = browser.new_context(color_scheme=theme, device_scale_factor=1.25, **SCREENS[screen])  # type: ignore[arg-type]
    page = context.new_page()
    for view in VIEWS:
        page.goto(f"{url}/#{view}")
        page.locator(f"#view-{view}").wait_for()
        prepare(page, view)
        page.evaluate("scrollTo(0, 0)")
        # the README's picture is the first of them
        name = (
            "studio" if (view, theme, screen) == ("speak", "light", "desktop") else f"{view}-{theme}-{screen}"
        )
        page.screenshot(path=IMAGES / f"{name}.png", full_page=screen == "phone")
    context.close()


def prepare(page: Page, view: str) -> None:
    """Bring a view to where it has something to show."""
    match view:
        case "speak":
            page.locator("#voice-2").select_option("old_sailor")
            page.locator("#say").click()
            page.wait_for_timeout(2600)
        case "jobs":
            page.get_by_role("button", name="Play").first.click()
            page.wait_for_timeout(900)
        case "server":
            for _ in range(5):  # the charts need something to draw
                page.evaluate(BUSY, MEMORIES * 20)
                page.wait_for_timeout(2500)
        case _:
            page.wait_for_timeout(900)


if __name__ == "__main__":
    main()
