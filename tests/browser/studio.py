"""The studio as its users see it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.live.address import Address

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
VIEWS = ("speak", "voices", "jobs", "server")
PATIENCE_MS = 60_000
"""Milliseconds that tests wait for the page; far more than is needed, for machines under load."""


class Studio(Address):
    def __init__(self, page: "Page", url: str) -> None:
        super().__init__(url)
        self.page = page

    def open(self, view: str = "speak") -> None:
        self.page.goto(f"{self.url}/#{view}")
        self.page.locator(f"#view-{view}").wait_for()
        if view in {"voices", "jobs", "server"}:
            self.page.locator(f"#view-{view} h1").wait_for()

    def write(self, *turns: str) -> None:
        """Replace the dialogue by `turns`, with alternating speakers."""
        self.button("Clear").click()
        for number, words in enumerate(turns):
            if number:
                self.page.keyboard.press("Enter")
            self.page.keyboard.insert_text(words)

    def told(self, **health: Any) -> None:
        """Reload the page, with `health` in place of these fields of the server's health."""

        def answer(route: "Route") -> None:
            route.fulfill(json=route.fetch().json() | health)

        self.page.unroute("**/health")
        self.page.route("**/health", answer)
        with self.page.expect_response("**/health"):
            self.page.reload()

    def speak(self) -> None:
        """Stop what plays, press Speak, and wait until all audio is made."""
        self.page.keyboard.press("Escape")
        self.button("Speak").click()
        self.until("document.getElementById('facts').textContent.includes('First sound')")

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression holds; Playwright's own way to wait breaks the page's policy."""
        # asked in the page, because each question from here takes three processes
        held = self.page.evaluate(
            f"""patience => new Promise((resolve) => {{
                const deadline = performance.now() + patience;
                const ask = () => {{
                    const held = Boolean({condition});
                    if (held || performance.now() > deadline) resolve(held);
                    else setTimeout(ask, 30);
                }};
                ask();
            }})""",
            PATIENCE_MS,
        )
        assert held, f"still not: {condition}"

    def wait_until(self, condition: Callable[[], object], name: str = "") -> None:
        """Wait until `condition` returns something true, while the page's events are handled."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not condition():
            assert time.monotonic() < deadline, f"still not: {name or condition}"
            self.page.wait_for_timeout(30)

    def wait_for_silence(self) -> None:
        """Wait until nothing more is played, apart from what the output buffer holds."""
        for _ in range(10):
            heard = self.heard["seconds"]
            self.page.wait_for_timeout(500)
            if self.heard["seconds"] == heard:
                return
        raise AssertionError("it still sounds")

    def button(self, name: str) -> "Locator":
        return self.page.get_by_role("button", name=name, exact=True)

    def answer(self, choice: str) -> None:
        """Answer the dialog that asks for confirmation."""
        question = self.page.locator("dialog[open]")
        question.get_by_role("button", name=choice).click()
        question.wait_for(state="detached")

    def undo(self, done: str) -> None:
        """Press Undo in the notice with the words `done`."""
        self.page.get_by_role("button", name=f"Undo: {done}").last.click()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def wait_for_text(self, words: str) -> None:
        self.page.get_by_text(words).first.wait_for()

    @property
    def heard(self) -> dict[str, Any]:
        """Audio that has been played, as tap.js has measured it."""
        heard: dict[str, Any] = self.page.evaluate("window.heard")
        return heard

    @property
    def width(self) -> int:
        width: int = self.page.evaluate("document.documentElement.scrollWidth")
        return width

    def accessibility_violations(self) -> list[str]:
        """Return the violations that axe-core finds, one line each."""
        self.page.evaluate(AXE)
        # the rules that hold would be most of the result
        violations = self.page.evaluate(
            "axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations)"
        )
        return [
            f"{rule['id']}: {node['target']} {node['failureSummary']}"
            for rule in violations
            for node in rule["nodes"]
        ]


OpenStudio = Callable[..., Studio]
