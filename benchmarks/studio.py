"""Time to first paint and to first sound of the studio, in Chromium, on the preview engine.

    python -m benchmarks.studio [--rounds 10]

Starts a server, and loads the page in a new browser profile each time. Measures the milliseconds until the
first contentful paint, and from the click on Speak until a sample above -34 dB is played. Exits with status 1
if the medians exceed 300 or 200 ms.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import CHROMIUM, FLAGS, TAP
from tests.browser.studio import Studio
from tests.live.server import Server

PAINT_MS, SAMPLE_MS = 300, 200
SENTENCE = "The ferry leaves at seven, and it does not wait."


def opened(browser: Browser, url: str) -> Studio:
    page = browser.new_context().new_page()
    page.add_init_script(path=TAP)
    studio = Studio(page, url)
    studio.open()
    return studio


def paint(browser: Browser, url: str) -> float:
    """Return the milliseconds from navigation to the first contentful paint."""
    studio = opened(browser, url)
    entries = "performance.getEntriesByName('first-contentful-paint')"
    studio.until(f"{entries}.length > 0")
    painted: float = studio.page.evaluate(f"{entries}[0].startTime")
    studio.page.context.close()
    return painted


def sample(studio: Studio) -> float:
    """Return the milliseconds from the click to the first audible sample."""
    studio.speak()
    studio.until("window.heard.first !== null")
    times = studio.heard
    studio.until("document.getElementById('play').ariaLabel === 'Play'")
    return float(times["first"] - times["clicked"])


def report(what: str, times: list[float], target: float) -> bool:
    """Print the times; return whether their median is within the target."""
    print(f"{what}: median {median(times):.0f} ms, worst {max(times):.0f} ms (at most {target:.0f})")
    return median(times) <= target


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=10)
    rounds = arguments.parse_args().rounds
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder), rate_limit_generate=0, rate_limit_jobs=0) as server,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser,
    ):
        paints = [paint(browser, server.url) for _ in range(rounds)]
        studio = opened(browser, server.url)
        studio.write(SENTENCE)
        samples = [sample(studio) for _ in range(rounds)]
    good = [
        report("first contentful paint", paints, PAINT_MS),
        report("first audible sample", samples, SAMPLE_MS),
    ]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
