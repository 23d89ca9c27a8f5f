import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from tests.browser.studio import OpenStudio, Studio
from tests.each import each
from tests.live.server import Server
from tests.waiting import early_in_a_minute

if TYPE_CHECKING:
    from playwright.sync_api import Route

SENTENCE = "The ferry leaves at seven, and it does not wait."
LONG = [SENTENCE] * 12
"""Turns of more than half a minute, so that audio still plays while a test presses buttons."""


def stopping_ends_the_request(studio: Studio) -> None:
    page = studio.page
    # a server that has accepted the request and not answered yet
    page.route("**/generate", lambda route: None)
    studio.write(SENTENCE)
    page.locator("#say").click()
    page.get_by_role("button", name="Stop").click()

    studio.wait_for_text("What you make appears here")
    page.unroute("**/generate")
    studio.speak()


def a_text_becomes_audible_audio(studio: Studio) -> None:
    studio.page.keyboard.press("Escape")
    studio.page.evaluate("Object.assign(heard, { peak: 0, seconds: 0 })")
    studio.write(SENTENCE, "Then we run.")
    studio.speak()
    studio.until("window.heard.seconds > 2")

    assert studio.heard["peak"] > 0.2


def the_download_is_the_audio_that_was_played_and_the_servers(studio: Studio) -> None:
    """Streamed audio has had no retries, so the download is streamed too, with the same seed."""
    studio.write(SENTENCE)
    with studio.page.expect_response("**/generate") as heard:
        studio.speak()
    studio.write("Something else by now.")
    studio.page.locator("#format").select_option("flac")
    with studio.page.expect_request("**/generate") as asked, studio.page.expect_download():
        studio.button("Download").click()
    studio.page.locator("#format").select_option("wav")
    with studio.page.expect_download() as saved:
        studio.button("Download").click()

    played: dict[str, Any] = heard.value.request.post_data_json or {}
    seed = int(heard.value.headers["x-seed"])
    assert asked.value.post_data_json == played | {"response_format": "flac", "seed": seed}
    made = studio.page.request.post(f"{studio.url}/generate", data={**played, "stream": False}).body()
    assert _pcm(saved.value.path()) == _pcm(io.BytesIO(made))


def sound_can_be_paused_and_sought_with_the_keyboard(studio: Studio) -> None:
    studio.write(*LONG)
    studio.speak()
    studio.button("Pause").press("Enter")
    studio.page.locator("#seek").focus()
    studio.page.keyboard.press("Home")
    assert studio.page.locator("#seek").get_attribute("aria-valuetext") is not None
    studio.until("document.getElementById('clock').textContent.startsWith('0:00')")
    studio.button("Play").press("Enter")
    studio.button("Pause").wait_for()


def another_take_is_the_same_text_with_a_seed_of_its_own(studio: Studio) -> None:
    page = studio.page
    held: list[Route] = []

    def hold_the_first(route: "Route") -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.keyboard.press("Escape")
    page.route("**/generate", hold_the_first)
    studio.write(SENTENCE)
    with page.expect_request("**/generate") as first:
        studio.button("Speak").click()
    with page.expect_event("requestfailed") as ended, page.expect_request("**/generate") as another:
        studio.button("Another take").click()
    seed = page.locator("#seed").input_value()
    studio.wait_for_text(f"seed {seed}")
    with page.expect_request("**/generate") as again:
        studio.speak()

    assert ended.value == first.value
    body = another.value.post_data_json
    assert body == (first.value.post_data_json or {}) | {"seed": int(seed)}
    assert again.value.post_data_json == body
    page.unroute("**/generate")


def the_request_has_the_chosen_values(studio: Studio) -> None:
    page = studio.page
    studio.told(engine="dia")  # the preview engine has no sampling
    studio.write("Hello.", "(laughs) Hello.")
    page.locator("#voice-1").select_option("kai")
    page.locator("#voice-2").select_option("nova")
    page.locator("#seed").fill("7")
    for slider, presses in (("speed", 4), ("temperature", 2), ("cfg_scale", 5), ("top_p", 3)):
        for _ in range(presses):
            page.locator(f"#{slider}").press("ArrowLeft" if slider == "top_p" else "ArrowRight")
    with page.expect_request("**/generate") as sent:
        studio.speak()

    assert sent.value.post_data_json == {
        "text": "[S1] Hello. [S2] (laughs) Hello.",
        "voice_id": "kai",
        "voice_id_2": "nova",
        "seed": 7,
        "speed": 1.2,
        "temperature": 1.3,
        "cfg_scale": 3.5,
        "top_p": 0.92,
        "response_format": "wav",
        "stream": True,
    }


@each(
    "part",
    [
        stopping_ends_the_request,
        a_text_becomes_audible_audio,
        the_download_is_the_audio_that_was_played_and_the_servers,
        sound_can_be_paused_and_sought_with_the_keyboard,
        another_take_is_the_same_text_with_a_seed_of_its_own,
        the_request_has_the_chosen_values,
    ],
)
def test_a_text_is_spoken(studio: Studio, part: Callable[[Studio], None]) -> None:
    part(studio)


@pytest.fixture
def spoken(studio: Studio) -> Studio:
    studio.write("One two three.")
    studio.speak()
    return studio


@each("audio_format", ["wav", "mp3", "opus", "aac", "flac", "pcm"])
def test_every_format_can_be_downloaded(spoken: Studio, audio_format: str) -> None:
    spoken.page.locator("#format").select_option(audio_format)
    with spoken.page.expect_download() as saved:
        spoken.button("Download").click()

    path = saved.value.path()
    if audio_format == "pcm":
        samples = np.fromfile(path, "<i2") / 32768
    else:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        samples = np.concatenate([frame.reshape(-1) for frame in frames]).astype(float)
    assert np.abs(samples).max() > 0.1
    assert saved.value.suggested_filename == f"dialogue.{'ogg' if audio_format == 'opus' else audio_format}"


def pasted_tags_become_turns(studio: Studio) -> None:
    studio.button("Clear").click()
    studio.page.keyboard.insert_text("[S1] Are you there? [S2] (sighs) Where else. [S1] Good. (laugh)")

    turns = studio.page.locator(".turn")
    assert turns.count() == 3
    assert [turn.get_attribute("class") for turn in turns.all()] == ["turn s1", "turn s2", "turn s1"]
    assert studio.page.locator(".turn mark.sound").all_inner_texts() == ["(sighs)", "(laugh)"]


def turns_can_be_edited_with_the_keyboard_alone(studio: Studio) -> None:
    page = studio.page
    studio.write("One", "Two", "Three")
    page.keyboard.press("Home")
    page.keyboard.press("Backspace")  # joins the third turn to the second
    assert _turns(studio) == ["One", "Two Three"]
    page.keyboard.press("Control+Enter")
    studio.until("window.heard.first !== null")


def cleared_and_removed_turns_can_be_restored(studio: Studio) -> None:
    studio.write("One", "Two", "Three")
    studio.button("Remove turn 2").click()
    assert _turns(studio) == ["One", "Three"]
    studio.undo("The turn is removed.")
    assert _turns(studio) == ["One", "Two", "Three"]
    studio.button("Clear").click()
    studio.page.keyboard.insert_text("Four")
    studio.undo("The dialogue is cleared.")

    assert _turns(studio) == ["One", "Two", "Three", "Four"]


def the_request_is_shown_as_code(studio: Studio) -> None:
    studio.write("It's a quote.")
    assert "It'\\''s a quote." in studio.text("#code pre")
    studio.button("Python").click()
    source = studio.text("#code pre")
    compile(source, "copied", "exec")
    assert f'"{studio.url}/generate"' in source
    studio.button("JavaScript").click()
    assert json.dumps("[S1] It's a quote.") in studio.text("#code pre")


def words_that_are_said_in_place_of_signs_are_marked_in_the_plan(studio: Studio) -> None:
    studio.write("It costs $5.")
    studio.wait_for_text("Marked words are said in place of what you wrote.")

    assert studio.page.locator(".steps em.mark:not(.s1)").all_inner_texts() == ["five", "dollars."]


def a_text_in_another_language_is_pointed_out(studio: Studio) -> None:
    studio.write("Die Katze sitzt auf dem Dach und schläft.")
    hint = studio.page.get_by_text("The text seems to be German; only English is spoken.")
    hint.wait_for()
    assert studio.accessibility_violations() == []

    studio.write("The cat is on the roof, and sleeps.")
    hint.wait_for(state="hidden")


def every_view_names_the_preview_engine(studio: Studio) -> None:
    for view in ("voices", "jobs", "server", "speak"):
        studio.open(view)
        studio.wait_for_text("Preview voice.")


def the_text_survives_a_reload(studio: Studio) -> None:
    studio.write("Remember me.")
    studio.page.locator("#voice-1").select_option("zara")
    studio.page.reload()
    studio.page.locator(".turn textarea").wait_for()

    assert studio.page.locator(".turn textarea").input_value() == "Remember me."
    studio.wait_for_text("Zara")
    assert studio.page.locator("#voice-1").input_value() == "zara"


def a_plan_is_shown_as_the_server_returns_it(studio: Studio) -> None:
    plan: dict[str, Any] = {
        "utterances": [
            {"text": "[S1] Once upon a time.", "pause_before_s": 0, "estimated_s": 6.2},
            {"text": "[S2] Twice, I think.", "pause_before_s": 0.25, "estimated_s": 5.1},
        ],
        "estimated_s": 11.55,
    }
    studio.page.route("**/plan", lambda route: route.fulfill(json=plan))
    studio.page.reload()
    studio.wait_for_text("2 segments, made side by side, about 12 s.")
    assert studio.text(".steps li:nth-child(2)").split("\n")[-1] == "+0.3 5.1 s"


@each(
    "part",
    [
        pasted_tags_become_turns,
        turns_can_be_edited_with_the_keyboard_alone,
        cleared_and_removed_turns_can_be_restored,
        the_request_is_shown_as_code,
        words_that_are_said_in_place_of_signs_are_marked_in_the_plan,
        a_text_in_another_language_is_pointed_out,
        every_view_names_the_preview_engine,
        the_text_survives_a_reload,
        a_plan_is_shown_as_the_server_returns_it,
    ],
)
def test_a_dialogue_is_written(studio: Studio, part: Callable[[Studio], None]) -> None:
    part(studio)


@pytest.fixture
def plain(studio: Studio) -> Studio:
    studio.button("Plain text").click()
    return studio


def a_refusal_is_shown_until_the_text_is_changed(studio: Studio) -> None:
    studio.page.locator("#script textarea").fill("word " * 1200)
    studio.page.locator("#say").click()

    alert = studio.page.locator("#speak-error")
    alert.wait_for()
    assert "limit is 4096" in alert.inner_text()
    assert "6,004 / 4,096 characters" in studio.text("#measure")
    assert studio.page.locator(".over").get_attribute("id") == "measure"
    assert studio.text("#too-long") == "Too long: the server takes 4,096 characters at once."
    assert studio.accessibility_violations() == []
    studio.page.locator("#script textarea").fill("Short 🙂")
    assert not alert.is_visible()
    assert studio.text("#measure").endswith("12 / 4,096 characters")
    assert studio.page.locator(".over").count() == 0
    assert studio.text("#too-long") == ""


def a_long_text_is_planned_and_spoken(studio: Studio) -> None:
    page = studio.page
    turns = [f"[S{1 + i % 2}] This is sentence number {i} of a long conversation." for i in range(40)]
    with page.expect_response("**/plan") as planned:
        page.locator("#script textarea").fill("\n".join(turns))
    page.locator(".steps li").nth(3).wait_for()
    assert page.locator(".steps li").count() == len(planned.value.json()["utterances"])
    studio.speak()
    assert _seconds(studio) > 60


@each(
    "part",
    [
        a_refusal_is_shown_until_the_text_is_changed,
        a_long_text_is_planned_and_spoken,
    ],
)
def test_a_plain_text_is_written(plain: Studio, part: Callable[[Studio], None]) -> None:
    part(plain)


def test_a_server_with_keys_and_limits_is_used_until_it_stops(
    open_studio: OpenStudio, tmp_path: Path
) -> None:
    with Server(tmp_path, api_keys="open-sesame", rate_limit_generate=2) as server:
        studio = open_studio(server.url)
        an_api_key_is_asked_for_and_kept(studio)
        a_refusal_and_a_stopped_server_are_reported_and_keep_the_last_take(studio, server)


def an_api_key_is_asked_for_and_kept(studio: Studio) -> None:
    key = studio.page.get_by_label("API key")
    key.fill("open-barley")
    studio.button("Use this key").click()
    studio.wait_for_text("That key is wrong")
    assert studio.accessibility_violations() == []
    key.fill("open-sesame")
    studio.button("Use this key").click()
    early_in_a_minute(20)
    studio.write(SENTENCE)
    studio.speak()
    studio.page.reload()
    studio.speak()
    assert not studio.page.locator("#key").is_visible()
    assert "open-sesame" not in studio.page.evaluate("JSON.stringify(localStorage)")
    assert "open-sesame" in studio.page.evaluate("JSON.stringify(sessionStorage)")


def a_refusal_and_a_stopped_server_are_reported_and_keep_the_last_take(
    studio: Studio, server: Server
) -> None:
    length, facts = _seconds(studio), studio.text("#facts")
    studio.button("Another take").click()
    error = studio.page.locator("#speak-error")
    error.get_by_text("more than this server allows in a minute").wait_for()
    server.stop()
    studio.button("Speak").click()
    # the notice of the health check has similar words, and may come first
    error.get_by_text("The server does not answer. Is it still running?").wait_for()

    assert (_seconds(studio), studio.text("#facts")) == (length, facts)
    before = studio.heard["seconds"]
    studio.button("Play").click()
    studio.until(f"window.heard.seconds > {before + 0.1}")
    studio.page.locator("#format").select_option("wav")
    with studio.page.expect_download() as saved:
        studio.button("Download").click()
    assert saved.value.path().stat().st_size > 44_100


@pytest.mark.full
def test_the_waveform_and_the_spectrogram_are_drawn(studio: Studio) -> None:
    studio.write(SENTENCE)
    studio.speak()
    studio.until("document.getElementById('play').ariaLabel === 'Play'")

    for canvas in ("wave", "spectrum"):
        colours: int = studio.page.evaluate(
            """id => { const canvas = document.getElementById(id);
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size }""",
            canvas,
        )
        assert colours > (20 if canvas == "spectrum" else 1)


@pytest.mark.full
def test_arrow_keys_seek_by_a_second(studio: Studio) -> None:
    studio.write(*LONG)
    studio.speak()
    studio.button("Pause").click()
    studio.page.locator("#seek").focus()
    keys = ("Home", "ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft")
    for key, position in zip(keys, (0, 1, 2, 3, 2), strict=True):
        studio.page.keyboard.press(key)
        studio.until(f"document.getElementById('clock').textContent.startsWith('0:0{position} / ')")


@pytest.mark.full
def test_sounds_are_inserted_at_the_cursor(studio: Studio) -> None:
    studio.write("Well")
    studio.button("Insert laughs").click()
    studio.page.keyboard.insert_text("never mind.")

    assert studio.page.locator(".turn textarea").input_value() == "Well (laughs) never mind."


@pytest.mark.full
def test_the_page_is_reached_by_tabbing(studio: Studio) -> None:
    page = studio.page
    names = []
    page.keyboard.press("Tab")
    for _ in range(40):
        names.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText"))
        page.keyboard.press("Tab")

    order = ["Skip to the content", "Speak", "Voices", "Turn 1, speaker 1", "Insert laughs", "Speak"]
    at = 0
    for name in order:
        at = names.index(name, at) + 1


@pytest.mark.full
def test_the_button_and_escape_stop_what_plays(open_studio: OpenStudio, furnished: Server) -> None:
    studio = open_studio(furnished.url)
    studio.write(*LONG)
    studio.speak()
    studio.button("Stop").click()
    studio.wait_for_silence()
    studio.button("Play").click()
    studio.button("Stop").wait_for()
    studio.page.keyboard.press("Escape")
    studio.button("Speak").wait_for()
    studio.wait_for_silence()


@pytest.mark.full
def test_escape_closes_a_dialog_and_the_audio_plays_on(open_studio: OpenStudio, furnished: Server) -> None:
    studio = open_studio(furnished.url)
    studio.write(*LONG)
    studio.speak()
    studio.page.get_by_role("link", name="Jobs").click()
    studio.button("Clear finished jobs").click()
    question = studio.page.locator("dialog[open]")
    question.wait_for()
    studio.page.keyboard.press("Escape")
    question.wait_for(state="detached")
    heard = studio.heard["seconds"]
    studio.until(f"window.heard.seconds > {heard + 0.2}")
    studio.page.keyboard.press("Escape")
    studio.wait_for_silence()


@pytest.mark.full
def test_the_preview_disables_sampling_and_gives_the_reason(studio: Studio) -> None:
    slider = studio.page.get_by_label("Temperature")
    reason = "The preview voice has no sampling: these three are for Dia."
    studio.wait_for_text(reason)
    assert slider.is_disabled()
    described = "slider => slider.ariaDescribedByElements.map((element) => element.textContent)"
    assert slider.evaluate(described) == ["Low is even, high is lively.", reason]
    assert studio.page.get_by_label("Speed").is_enabled()

    studio.told(engine="dia")
    assert slider.is_enabled()
    assert not studio.page.get_by_text(reason).is_visible()


@pytest.mark.full
def test_the_estimate_is_of_the_current_text(studio: Studio) -> None:
    plans: list[Route] = []
    studio.page.route("**/plan", lambda route: plans.append(route))
    studio.write(SENTENCE)
    studio.until("document.getElementById('measure').textContent.startsWith('About 3 s')")  # a guess
    _answer(studio, plans, 99)
    studio.until("document.getElementById('measure').textContent.startsWith('About 99 s')")
    studio.page.keyboard.insert_text(" Not a minute.")
    assert studio.text("#measure").startswith("About 4 s")
    _answer(studio, plans, 77)
    studio.until("document.getElementById('measure').textContent.startsWith('About 77 s')")


@pytest.mark.full
def test_a_server_without_plans_is_reported(studio: Studio) -> None:
    studio.page.route(
        "**/plan", lambda route: route.fulfill(status=404, json={"detail": "no", "error_code": "NOT_FOUND"})
    )
    studio.page.reload()
    studio.wait_for_text("does not offer a plan")


@pytest.mark.full
def test_a_right_key_is_accepted_after_many_wrong_ones(open_studio: OpenStudio, tmp_path: Path) -> None:
    with Server(tmp_path, api_keys="open-sesame", rate_limit_generate=0) as server:
        for _ in range(20):
            server.get("/voices", headers={"Authorization": "Bearer open-barley"})
        studio = open_studio(server.url)
        key = studio.page.get_by_label("API key")
        key.fill("open-barley")
        studio.button("Use this key").click()
        studio.wait_for_text("That key is wrong: this server does not know it.")
        key.fill("open-sesame")
        studio.button("Use this key").click()
        studio.speak()


def _turns(studio: Studio) -> list[str]:
    return [area.input_value() for area in studio.page.locator(".turn textarea").all()]


def _answer(studio: Studio, plans: "list[Route]", seconds: int) -> None:
    """Answer the last request for a plan with an estimate in seconds."""
    studio.wait_until(lambda: plans)
    piece = {"text": "[S1] It.", "pause_before_s": 0, "estimated_s": seconds}
    plans.pop().fulfill(json={"utterances": [piece], "estimated_s": seconds})


def _pcm(file: Path | io.BytesIO) -> bytes:
    with wave.open(str(file) if isinstance(file, Path) else file) as audio:
        frames: bytes = audio.readframes(audio.getnframes())
    return frames


def _seconds(studio: Studio) -> float:
    # the whole take is drawn in the next frame
    studio.until("!/~|^$|0:00$/.test(document.getElementById('clock').textContent)")
    minutes, seconds = studio.text("#clock").split("/")[1].strip(" ~").split(":")
    return 60 * int(minutes) + int(seconds)
