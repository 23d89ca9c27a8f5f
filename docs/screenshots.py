"""Make docs/images/*.png from the running studio: `python -m docs.screenshots [folder]`.

Starts a preview server with a few voices, recordings and jobs, and photographs every view, and Speak on a
phone too. *Design a voice* is photographed on a server with a fake Dia. It takes two minutes: the charts of
the Server view need one to fill.
"""

import io
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.chromium import CHROMIUM
from tests.live import cloning_server as cloning
from tests.live.server import Server

IMAGES = Path(__file__).parent / "images"
SCREENS = {
    "desktop": {"viewport": {"width": 1360, "height": 850}, "device_scale_factor": 1.25},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}
CHART_S = 64
"""Seconds for which the charts are filled."""
MEMORIES = "When I was young we had no television. We had a stove, and stories, and a dog who ran the house."
STORM = "The storm of that winter took the pier, and two boats, and the roof of the chapel. Nobody slept."
LONG = (
    "The ferry leaves at seven, and it does not wait. Who is late swims, or stays, and most of us stayed. ",
    "Every garden on this street had a secret, and ours had two. The first was under the pear tree. ",
    "Nobody taught the dog to open the door. He watched, and waited, and one night he was gone. ",
)
REPEATS = 38
JOBS = (
    "[S1] Good evening, and welcome to the late news. [S2] Good evening. Tonight: a whale in the harbour.",
    "[S1] Chapter two. [S2] Already? (laughs) [S1] I read fast.",
    "[S1] The lighthouse keeper had not spoken to anyone for eleven days. [S2] (sighs) Twelve, he would say.",
)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    with (
        tempfile.TemporaryDirectory() as data,
        Server(
            Path(data), max_batch=2, rate_limit_generate=0, rate_limit_jobs=0, auto_transcribe="false"
        ) as server,
        sync_playwright() as playwright,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        furnish(client)
        views = {"speak": speak, "voices": voices, "jobs": jobs, "server": watch}
        for view, prepare in views.items():
            with opened(browser, server.url, view, "light", "desktop") as page:
                prepare(page, client)
                shoot(page, folder / f"{'studio' if view == 'speak' else view}.png")
        with opened(browser, server.url, "speak", "dark", "phone") as page:
            speak(page, client)
            shoot(page, folder / "phone.png", whole=False)
        with cloning_server() as url, opened(browser, url, "voices", "light", "desktop") as page:
            design(page)
            page.get_by_role("form", name="Design a voice").screenshot(path=folder / "design.png")
            (folder / "design.png").write_bytes(shrunk((folder / "design.png").read_bytes()))
        browser.close()


@contextmanager
def cloning_server() -> Iterator[str]:
    """Run a server whose fake Dia speaks in tones; yield its URL."""
    command = (sys.executable, cloning.__file__, "serve")
    with tempfile.TemporaryDirectory() as data, Server(Path(data), command=command) as server:
        yield server.url


def furnish(client: httpx.Client) -> None:
    """Give the server something to show."""
    for voice_id, speaker, words in (("grandmother", "zara", MEMORIES), ("old_sailor", "atlas", STORM)):
        audio = client.post("/generate", json={"text": words, "voice_id": speaker}).content
        client.post(
            "/audio_prompts/upload",
            data={"prompt_id": voice_id, "transcript": words},
            files={"audio_file": ("sample.wav", audio)},
        ).raise_for_status()
        give_voice(client, voice_id, voice_id)
    for text in JOBS:
        submit(client, text=text, response_format="mp3", voice_id="grandmother")
    unwanted = submit(client, text="[S1] I had more to say, but not today. " * 80)
    client.delete(f"/jobs/{unwanted}")
    while any(job["status"] in {"pending", "processing"} for job in client.get("/jobs").json()["jobs"]):
        time.sleep(0.1)


def give_voice(client: httpx.Client, voice_id: str, prompt_id: str) -> None:
    client.post(
        "/voice_mappings", json={"voice_id": voice_id, "style": "recorded", "audio_prompt": prompt_id}
    )


def submit(client: httpx.Client, **request: str) -> str:
    job_id: str = client.post("/generate?async_mode=true", json=request).raise_for_status().json()["job_id"]
    return job_id


@contextmanager
def opened(browser: Browser, url: str, view: str, theme: str, screen: str) -> Iterator[Page]:
    context = browser.new_context(color_scheme=theme, **SCREENS[screen])  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{url}/#{view}")
    page.locator(f"#view-{view} h1").wait_for()
    yield page
    context.close()


def shoot(page: Page, file: Path, *, whole: bool = True) -> None:
    """Photograph the `whole` page, or the part of it that the screen shows."""
    page.evaluate("document.activeElement.blur()")
    page.evaluate("scrollTo(0, 0)")  # otherwise the sticky header is in the middle
    page.mouse.move(0, 0)
    file.write_bytes(shrunk(page.screenshot(full_page=whole)))


def shrunk(png: bytes) -> bytes:
    """Return the picture with a palette of 256 colours, which takes a third of the bytes."""
    with av.open(io.BytesIO(png), "r") as file:
        picture = next(file.decode(video=0))
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1)
    )
    split, palette = graph.add("split"), graph.add("palettegen", "reserve_transparent=0")
    use, sink = graph.add("paletteuse", "dither=none"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(palette)
    split.link_to(use, 1)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    source.push(picture)
    source.push(None)
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = picture.width, picture.height, "pal8"
    context.time_base, context.options = Fraction(1), {"compression_level": "9", "pred": "none"}
    return b"".join(bytes(packet) for packet in [*context.encode(graph.vpull()), *context.encode(None)])


def speak(page: Page, client: httpx.Client) -> None:
    page.locator("#voice-2").select_option("old_sailor")
    page.locator(".steps li").first.wait_for()
    page.locator("#say").click()
    page.wait_for_timeout(2600)


def voices(page: Page, client: httpx.Client) -> None:
    page.locator(".prompt .clock").last.get_by_text("0:0").wait_for()
    page.get_by_role("button", name="Play the recording").first.click()
    page.wait_for_timeout(2000)


def design(page: Page) -> None:
    page.get_by_label("Display name").fill("Grandmother")
    page.get_by_label("Show first").select_option("deep")
    page.get_by_label("How many").fill("3")
    page.get_by_role("button", name="Make candidates").click()
    page.get_by_text("All are ready.").wait_for()
    page.get_by_role("button", name="Keep the candidate").first.click()
    page.locator("#notices p").wait_for(state="detached")
    page.locator("header.top").evaluate(
        "header => { header.style.position = 'static' }"
    )  # it would cover the form


def jobs(page: Page, client: httpx.Client) -> None:
    for text, voice_id in zip(LONG, ("old_sailor", "grandmother", "nova"), strict=True):
        submit(client, text=text * REPEATS, voice_id=voice_id, response_format="flac")
    while True:
        listed = client.get("/jobs").json()
        if any(job["status"] == "processing" and 40 < job["progress"] < 80 for job in listed["jobs"]):
            break
        time.sleep(0.02)
    page.route("**/jobs?*", lambda route: route.fulfill(json=listed))  # freeze this state
    page.reload()
    page.get_by_role("button", name="Play “Good evening").click()
    page.wait_for_timeout(1500)


def watch(page: Page, client: httpx.Client) -> None:
    """Fill the charts of the Server view."""
    for burst in range(CHART_S // 8):
        for _ in range(burst % 4):
            submit(client, text=LONG[burst % 3] * REPEATS)
        page.wait_for_timeout(8000)


if __name__ == "__main__":
    main()
