"""The studio with a real Whisper, tiny.en, which is not sure of speech in other languages than English."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.studio import Studio
from tests.live.server import Server
from tests.speech_clips import WHISPER, load_clips

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

SPANISH = load_clips()["es/conteo"]
ENGLISH = load_clips()["en/counting"]


@pytest.fixture(scope="module")
def server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("review"), whisper_model=WHISPER, rate_limit_upload=0) as server:
        yield server


def test_a_doubtful_transcript_is_confirmed_before_the_voice_is_saved(studio: Studio) -> None:
    page = studio.page
    studio.open("voices")
    page.get_by_label("Choose a file").set_input_files(SPANISH.path)
    page.get_by_label("Waveform of your recording").wait_for()
    page.locator("#voice-name").fill("Conteo")
    studio.button("Save as a voice").click()
    studio.wait_for_text("Whisper is not sure of these words.")
    confirm = studio.button("Confirm and save as a voice")
    confirm.wait_for()

    assert page.locator("#voice-words").input_value()
    assert studio.accessibility_violations() == []
    assert "conteo" not in studio.get("/voice_mappings").json()
    assert studio.get("/audio_prompts/metadata/conteo").json()["needs_review"]
    page.locator("#voice-words").fill("")
    confirm.click()
    studio.wait_for_text("Write down what is said in the recording.")
    page.locator("#voice-words").fill(SPANISH.words)
    confirm.click()
    studio.wait_for_text("Saved. Try it")

    prompt = studio.get("/audio_prompts/metadata/conteo").json()
    assert (prompt["transcript"], prompt["needs_review"]) == (SPANISH.words, False)
    assert studio.get("/voice_mappings").json()["conteo"]["audio_prompt"] == "conteo"
    assert page.locator("#voice-words").input_value() == ""
    studio.button("Try Conteo").click()
    studio.until("window.heard.seconds > 1")


def test_whisper_is_asked_for_another_transcript(studio: Studio) -> None:
    studio.post(
        "/audio_prompts/upload",
        data={"prompt_id": "aunt_may", "transcript": "Wheat cakes are ready."},
        files={"audio_file": ("may.wav", ENGLISH.path.read_bytes())},
    ).raise_for_status()
    studio.open("voices")
    row = studio.page.get_by_role("article", name="Recording Aunt May")
    asked: list[Route] = []
    studio.page.route("**/transcribe", lambda route: asked.append(route))
    row.get_by_role("button", name="Ask Whisper").click()
    row.get_by_text("Whisper is listening…").wait_for()
    assert row.get_by_role("button", name="Ask Whisper").is_disabled()
    asked[0].continue_()
    studio.wait_for_text("Whisper has written it down.")
    row.get_by_text("by Whisper: check it").wait_for()

    prompt = studio.get("/audio_prompts/metadata/aunt_may").json()
    assert prompt["transcript_source"] == "whisper_auto"
    assert len(prompt["transcript"]) > 10
    words = row.get_by_label("What is said in it")
    assert words.input_value() == prompt["transcript"]
    studio.undo("Whisper has written it down.")
    assert words.input_value() == "Wheat cakes are ready."
    assert row.get_by_role("button", name="Save the transcript").is_enabled()


@pytest.mark.full
def test_another_recording_ends_the_review(studio: Studio) -> None:
    page = studio.page
    studio.open("voices")
    page.get_by_label("Choose a file").set_input_files(SPANISH.path)
    page.get_by_label("Waveform of your recording").wait_for()
    page.locator("#voice-name").fill("Other")
    studio.button("Save as a voice").click()
    studio.button("Confirm and save as a voice").wait_for()
    page.get_by_label("Choose a file").set_input_files(ENGLISH.path)
    studio.button("Save as a voice").wait_for()

    assert page.locator("#voice-words").input_value() == ""
    page.locator("#voice-name").fill("Counting")
    studio.button("Save as a voice").click()
    studio.wait_for_text("Saved. Try it")
    assert not studio.get("/audio_prompts/metadata/counting").json()["needs_review"]


@pytest.mark.full
def test_a_draft_among_the_recordings_is_confirmed_as_it_is(studio: Studio) -> None:
    studio.post(
        "/audio_prompts/upload",
        data={"prompt_id": "uno"},
        files={"audio_file": ("uno.wav", SPANISH.path.read_bytes())},
    ).raise_for_status()
    studio.post("/voice_mappings", json={"voice_id": "uno", "audio_prompt": "uno"})
    studio.open("voices")
    row = studio.page.get_by_role("article", name="Recording Uno")
    row.get_by_text("Whisper is not sure: check it").wait_for()
    draft = row.get_by_label("What is said in it").input_value()
    assert studio.accessibility_violations() == []

    row.get_by_role("button", name="Confirm the transcript").click()
    row.get_by_text("written by you").wait_for()

    prompt = studio.get("/audio_prompts/metadata/uno").json()
    assert (prompt["transcript"], prompt["needs_review"]) == (draft, False)
    assert row.get_by_role("button", name="Save the transcript").is_disabled()
