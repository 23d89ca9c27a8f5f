"""Follows "Your own voice in nine steps" of docs/studio.md word by word.

The server is the installed one in an empty folder. With NEWCOMER_MAKE_RUN=1 the first step is followed too,
with README's commands, which clone this repository and install everything: minutes, and gigabytes from the
package index.
"""

import os
import re
from pathlib import Path

from tests.browser.studio import OpenStudio, Studio
from tests.live.server import Server

ROOT = Path(__file__).parents[2]
SECTION = "## Your own voice in nine steps\n"
ADDRESS = "ADDRESS_OF_THIS_REPOSITORY"
MAKE_RUN = os.environ.get("NEWCOMER_MAKE_RUN") == "1"
SET_UP_S = 1800
SENTENCE = "The ferry leaves at seven, and it does not wait."


class Steps:
    """The steps as the page has them: a title each, and the names of buttons and fields in italics."""

    def __init__(self) -> None:
        section = (ROOT / "docs" / "studio.md").read_text().split(SECTION)[1].split("\n## ")[0]
        self.left = re.findall(r"^\d+\. (.+(?:\n {3}.+)*)$", section, re.MULTILINE)
        self.number = len(self.left)
        self._step = ""

    def begin(self, title: str) -> None:
        self._step = self.left.pop(0)
        assert self._step.startswith(f"**{title}**")

    def named(self, label: str) -> str:
        assert f"*{label}*" in self._step
        return label


def start(folder: Path) -> Server:
    """Return the server that README's commands start or, without NEWCOMER_MAKE_RUN, the installed one."""
    (commands,) = re.findall("^git clone .+\n.*make run.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    clone, run = (line.partition("#")[0].strip() for line in commands.splitlines())
    assert (clone, run) == (f"git clone {ADDRESS} dia-server && cd dia-server", "make run")
    if not MAKE_RUN:
        return Server(folder)
    command = f"{clone} && {run}".replace(ADDRESS, str(ROOT))
    return Server(folder, command=("sh", "-c", command), patience_s=SET_UP_S)


def test_the_steps_lead_to_speech_with_a_new_voice(tmp_path: Path, open_studio: OpenStudio) -> None:
    steps = Steps()
    assert steps.number < 10

    steps.begin("Start the server")
    with start(tmp_path) as server:
        steps.begin("Open the page")
        studio = open_studio(server.url)
        page = studio.page
        page.goto(server.url)

        steps.begin("Write a sentence")
        studio.button(steps.named("Clear")).click()
        page.keyboard.type(SENTENCE)

        steps.begin("Hear it")
        studio.button(steps.named("Speak")).click()
        _hear(studio)

        steps.begin("Look at the voices")
        page.get_by_role("link", name=steps.named("Voices")).click()
        form = page.get_by_role("form", name="A new voice")

        steps.begin("Record yourself")
        form.get_by_role("button", name=steps.named("Record")).click()
        stop = re.compile(rf"{steps.named('Stop')} · 0:(0[5-9]|[1-5]\d)")
        form.get_by_role("button", name=stop).click()
        form.get_by_role("img", name="Waveform of your recording").wait_for()

        steps.begin("Write down the words")
        form.get_by_label(steps.named("What is said in it")).fill("Beep, beep, beep, beep, beep.")

        steps.begin("Save it")
        form.get_by_label(steps.named("Name")).fill("Robot")
        form.get_by_role("button", name=steps.named("Save as a voice")).click()

        steps.begin("Speak with it")
        page.get_by_role("button", name=f"{steps.named('Cast')} Robot").click()
        with page.expect_request("**/generate") as asked:
            studio.button(steps.named("Speak")).click()
        _hear(studio)

        body = asked.value.post_data_json or {}
        assert (body["voice_id"], body["text"]) == ("robot", f"[S1] {SENTENCE}")
        prompt = server.get("/audio_prompts/metadata/robot").json()
        assert prompt["duration"] > 4
        assert prompt["transcript"] == "Beep, beep, beep, beep, beep."
    assert steps.left == []


def _hear(studio: Studio) -> None:
    """Wait until more than a second of audio, of a normal level, has been played."""
    before = studio.heard["seconds"]
    studio.until(f"window.heard.first !== null && window.heard.seconds > {before + 1}")
    assert studio.heard["peak"] > 0.2
