import io
import re
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.browser.studio import OpenStudio, Studio
from tests.each import each
from tests.live.server import Server
from tests.recordings import wav_file

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

MICROPHONES = """
window.microphones = [];
window.allowed = null;
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wishes) => {
  await window.allowed;
  const stream = await ask(wishes);
  window.microphones.push(...stream.getTracks());
  return stream;
};
"""
"""Records all microphone tracks; `allowed` is a promise that the permission waits for."""


@pytest.fixture(scope="module")
def hearing_server(
    browser: "Browser", whisper_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a small Whisper model."""
    with Server(tmp_path_factory.mktemp("hearing"), whisper_model=whisper_folder) as server:
        yield server


@pytest.fixture
def hearing(open_studio: OpenStudio, hearing_server: Server) -> Studio:
    return open_studio(hearing_server.url)


def an_uploaded_recording_becomes_a_voice(studio: Studio) -> None:
    page = studio.page
    studio.open("voices")
    page.locator("#voice-file").set_input_files(
        {"name": "Uncle Ben.wav", "mimeType": "audio/wav", "buffer": wav_file(3.0)}
    )
    page.get_by_label("Waveform of your recording").wait_for()
    assert page.locator("#voice-name").input_value() == "Uncle Ben"
    page.locator("#voice-words").fill("Power is a thing to be careful with.")
    page.locator("#save-voice").click()
    studio.wait_for_text("Saved. Try it, or cast it in a dialogue.")

    mapping = studio.get("/voice_mappings").json()["uncle_ben"]
    assert mapping["audio_prompt"] == "uncle_ben"
    prompt = studio.get("/audio_prompts/metadata/uncle_ben").json()
    assert prompt["transcript"] == "Power is a thing to be careful with."
    studio.button("Try Uncle Ben").click()
    studio.until("window.heard.seconds > 1")
    assert studio.heard["peak"] > 0.2

    page.get_by_role("button", name="Cast Uncle Ben").click()
    page.locator("#say").wait_for()
    assert page.locator("#voice-1").input_value() == "uncle_ben"
    studio.speak()


def a_voice_is_recorded_with_the_microphone(studio: Studio) -> None:
    page = studio.page
    studio.open("voices")
    studio.button("Record").click()
    page.get_by_role("button", name=re.compile(r"Stop · 0:(0[2-9]|[1-5]\d)")).wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_label("Waveform of your recording").wait_for()
    page.locator("#voice-words").fill("Beep, beep.")
    page.locator("#voice-name").fill("The Robot")
    page.locator("#save-voice").click()
    studio.wait_for_text("Saved. Try it")

    recording = studio.get("/audio_prompts/the_robot/audio").content
    with wave.open(io.BytesIO(recording)) as audio:
        seconds = audio.getnframes() / audio.getframerate()
        samples = np.frombuffer(audio.readframes(audio.getnframes()), "<i2")
    assert seconds > 1.5
    assert np.abs(samples).max() > 10_000  # Chromium's fake microphone beeps


def a_changed_built_in_voice_can_be_reset(studio: Studio) -> None:
    page = studio.page
    studio.open("voices")
    _choose(studio, "Kai.wav", 3.0)
    page.locator("#voice-words").fill("It is me now.")
    studio.button("Save as a voice").click()
    studio.wait_for_text("a voice that comes with the server")
    studio.answer("Replace it")
    studio.button("Reset Kai").click()
    studio.wait_for_text("Kai is as it came.")
    assert studio.get("/voice_mappings").json()["kai"]["audio_prompt"] is None
    studio.undo("Kai is as it came.")
    studio.button("Reset Kai").wait_for()

    assert studio.get("/voice_mappings").json()["kai"]["audio_prompt"] == "kai"
    studio.button("Reset Kai").click()
    studio.button("Reset Kai").wait_for(state="detached")


def a_file_that_is_no_audio_is_refused(studio: Studio) -> None:
    page = studio.page
    studio.open("voices")
    page.locator("#voice-file").set_input_files(
        {"name": "notes.wav", "mimeType": "audio/wav", "buffer": b"not audio at all" * 100}
    )
    studio.wait_for_text("The browser cannot play this file")
    page.locator("#save-voice").click()
    alert = page.locator(".newvoice .trouble")
    alert.wait_for()
    assert alert.inner_text().startswith("The recording cannot be used.")
    assert "the file cannot be decoded" in alert.inner_text()


@each(
    "part",
    [
        an_uploaded_recording_becomes_a_voice,
        a_voice_is_recorded_with_the_microphone,
        a_changed_built_in_voice_can_be_reset,
        a_file_that_is_no_audio_is_refused,
    ],
)
def test_a_voice_is_made_and_reset(studio: Studio, part: Callable[[Studio], None]) -> None:
    studio.page.reload()  # two parts wait for the same message
    part(studio)


def a_transcript_is_corrected_and_its_recording_played(studio: Studio) -> None:
    _upload(studio, "aunt_may")
    page = studio.page
    studio.open("speak")
    studio.open("voices")
    row = page.get_by_role("article", name="Recording Aunt May")
    row.get_by_label("What is said in it").fill("Wheat cakes are ready.")
    row.get_by_role("button", name="Save the transcript").click()
    studio.wait_for_text("Transcript saved.")
    row.get_by_text("written by you").wait_for()
    row.get_by_role("button", name="Play the recording Aunt May").click()
    studio.until("window.heard.seconds > 0.5")

    prompt = studio.get("/audio_prompts/metadata/aunt_may").json()
    assert (prompt["transcript"], prompt["transcript_source"]) == ("Wheat cakes are ready.", "manual")


def a_recording_in_use_is_not_deleted(studio: Studio) -> None:
    _upload(studio, "jonah")
    studio.post("/voice_mappings", json={"voice_id": "jonah", "audio_prompt": "jonah"})
    page = studio.page
    studio.open("speak")
    studio.open("voices")
    page.get_by_role("button", name="Delete the recording Jonah").click()
    page.get_by_role("article", name="Recording Jonah").get_by_role("alert").wait_for()
    assert "Jonah" in page.get_by_role("article", name="Recording Jonah").get_by_role("alert").inner_text()

    page.get_by_role("button", name="Delete the voice Jonah").click()
    studio.wait_for_text("its recording is kept")
    page.get_by_role("button", name="Delete the recording Jonah").click()
    studio.answer("No, keep it")
    page.get_by_role("button", name="Delete the recording Jonah").click()
    studio.answer("Delete it")
    studio.wait_for_text("Recording deleted.")
    assert studio.get("/audio_prompts/metadata/jonah").status_code == 404


def a_deleted_voice_can_be_restored(studio: Studio) -> None:
    _upload(studio, "felicia")
    studio.post("/voice_mappings", json={"voice_id": "felicia", "audio_prompt": "felicia"})
    studio.open("speak")
    studio.open("voices")
    studio.button("Delete the voice Felicia").click()
    studio.button("Try Felicia").wait_for(state="detached")
    studio.undo("Felicia is deleted")
    studio.button("Try Felicia").wait_for()

    assert studio.get("/voice_mappings").json()["felicia"]["audio_prompt"] == "felicia"


def a_voice_without_a_transcript_is_refused_with_the_remedy(studio: Studio) -> None:
    _upload(studio, "mute")
    studio.post("/voice_mappings", json={"voice_id": "mute", "audio_prompt": "mute"})
    studio.open("speak")
    studio.open("voices")
    studio.page.get_by_role("button", name="Cast Mute").click()
    studio.button("Speak").click()
    alert = studio.page.locator("#speak-error")
    alert.wait_for()
    assert alert.inner_text().endswith("its transcript is missing or not confirmed. Correct it under Voices.")


@each(
    "part",
    [
        a_transcript_is_corrected_and_its_recording_played,
        a_recording_in_use_is_not_deleted,
        a_deleted_voice_can_be_restored,
        a_voice_without_a_transcript_is_refused_with_the_remedy,
    ],
)
def test_recordings_and_voices_are_changed(studio: Studio, part: Callable[[Studio], None]) -> None:
    part(studio)


@pytest.mark.full
def test_a_transcript_being_edited_is_not_overwritten(studio: Studio) -> None:
    """While Whisper works, the list is read every few seconds; each recording is fetched once."""
    _upload(studio, "mary", transcript="Face it, tiger.")
    page = studio.page
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    busy = {"now": True}

    def still_busy(route: "Route") -> None:
        answer = studio.get("/audio_prompts/metadata").json()
        for prompt in answer["audio_prompts"]:
            if busy["now"]:
                prompt |= {"transcript": None, "transcript_source": "pending"}
        route.fulfill(json=answer)

    page.route("**/audio_prompts/metadata", still_busy)
    studio.open("voices")
    row = page.get_by_role("article", name="Recording Mary")
    row.get_by_text("Whisper is listening…").wait_for()
    words = row.get_by_label("What is said in it")
    words.fill("You just hit the jackpot")
    busy["now"] = False
    row.get_by_text("written by you").wait_for()

    assert words.input_value() == "You just hit the jackpot"
    assert words.evaluate("field => field === document.activeElement")
    assert len([url for url in fetched if url.endswith("/mary/audio")]) == 1
    row.get_by_role("button", name="Save the transcript").click()
    studio.wait_for_text("Transcript saved.")


@pytest.mark.full
def test_an_empty_transcript_is_filled_by_whisper(hearing: Studio) -> None:
    page = hearing.page
    hearing.open("voices")
    page.get_by_label("Choose a file").set_input_files(
        {"name": "Norman.wav", "mimeType": "audio/wav", "buffer": wav_file(3.0)}
    )
    page.get_by_label("Waveform of your recording").wait_for()
    hearing.button("Save as a voice").click()
    page.get_by_role("article", name="Recording Norman").get_by_text("by Whisper: check it").wait_for()
    hearing.button("Try Norman").click()
    hearing.until("window.heard.seconds > 1")


@pytest.mark.full
def test_the_reason_why_whisper_is_unavailable_is_shown(open_studio: OpenStudio, tmp_path: Path) -> None:
    with Server(tmp_path, whisper_model=tmp_path / "nowhere", auto_transcribe="false") as server:
        studio = open_studio(server.url)
        _upload(studio, "gwen")
        studio.open("voices")
        row = studio.page.get_by_role("article", name="Recording Gwen")
        row.get_by_role("button", name="Ask Whisper").click()
        row.get_by_role("alert").get_by_text("nowhere").wait_for()
        row.get_by_text("no transcript").wait_for()
        assert row.get_by_role("button", name="Ask Whisper").is_enabled()


@pytest.mark.full
def test_a_denied_microphone_is_reported(studio: Studio) -> None:
    studio.page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError') }"
    )
    studio.page.reload()
    studio.open("voices")
    studio.button("Record").click()
    studio.wait_for_text("was not allowed to use the microphone")


def _upload(studio: Studio, prompt_id: str, transcript: str = "") -> None:
    studio.post(
        "/audio_prompts/upload",
        data={"prompt_id": prompt_id, "transcript": transcript},
        files={"audio_file": ("sample.wav", wav_file(2.0))},
    ).raise_for_status()


@pytest.mark.full
def test_replacing_a_recording_asks_for_confirmation(studio: Studio) -> None:
    page = studio.page
    _upload(studio, "otto", transcript="The sun in the palm of my hand.")
    studio.open("voices")
    _choose(studio, "Otto.wav", 4.0)
    studio.button("Save as a voice").click()
    studio.wait_for_text("There is already a recording with this name.")
    assert studio.accessibility_violations() == []
    studio.answer("No, keep it")
    assert studio.get("/audio_prompts/metadata/otto").json()["duration"] == pytest.approx(2)
    assert page.locator("#voice-name").input_value() == "Otto"
    page.locator("#voice-words").fill("Anything.")
    studio.button("Save as a voice").click()
    studio.answer("Replace it")
    studio.wait_for_text("Saved.")

    assert studio.get("/audio_prompts/metadata/otto").json()["duration"] == pytest.approx(4)
    page.get_by_role("article", name="Recording Otto").get_by_text("0:04").wait_for()


@pytest.mark.full
def test_a_double_click_on_record_opens_one_microphone(studio: Studio) -> None:
    studio.page.add_init_script(MICROPHONES)
    studio.page.reload()
    studio.open("voices")
    studio.page.locator("#record").dblclick()
    studio.page.get_by_role("button", name=re.compile(r"Stop · 0:(0[1-9]|[1-5]\d)")).click()
    studio.page.get_by_label("Waveform of your recording").wait_for()

    assert studio.page.evaluate("microphones.map((track) => track.readyState)") == ["ended"]


@pytest.mark.full
def test_a_microphone_allowed_after_leaving_the_view_is_closed(studio: Studio) -> None:
    studio.page.add_init_script(MICROPHONES)
    studio.page.reload()
    studio.open("voices")
    studio.page.evaluate("void (window.allowed = new Promise((resolve) => { window.allow = resolve }))")
    studio.button("Record").click()
    studio.page.get_by_role("link", name="Jobs").click()
    studio.page.evaluate("allow()")
    studio.until("microphones.length === 1 && microphones[0].readyState === 'ended'")
    studio.page.get_by_role("link", name="Voices").click()
    studio.button("Record").click()
    studio.page.get_by_role("button", name=re.compile(r"Stop · 0:(0[1-9]|[1-5]\d)")).click()


@pytest.mark.parametrize(
    ("seconds", "hint"), [(2.0, "Under 3 seconds"), (32.0, "Over 30 seconds"), (6.0, None)], ids=str
)
@pytest.mark.full
def test_a_recording_too_short_or_too_long_shows_a_hint(
    studio: Studio, seconds: float, hint: str | None
) -> None:
    studio.open("voices")
    _choose(studio, "Any.wav", seconds)

    told = studio.page.locator(".newvoice .hint")
    assert told.is_visible() == (hint is not None)
    assert told.inner_text().startswith(hint or "")


@pytest.mark.full
def test_a_sample_is_stopped_by_its_own_button(studio: Studio) -> None:
    def lengthen(route: "Route") -> None:
        """Make the sample long enough to be stopped on a machine under load."""
        route.fulfill(body=wav_file(30.0), content_type="audio/wav")

    studio.open("voices")
    studio.page.route("**/preview", lengthen)
    studio.button("Try Aria").click()
    studio.until("window.heard.seconds > 0.2")
    studio.button("Stop: Try Aria").click()
    studio.button("Try Aria").wait_for()
    studio.page.unroute("**/preview")
    heard = studio.heard["seconds"]
    studio.button("Try Luna").click()
    studio.until(f"window.heard.seconds > {heard + 1}")
    studio.button("Try Luna").wait_for()  # the sample has ended


def _choose(studio: Studio, name: str, seconds: float) -> None:
    studio.page.get_by_label("Choose a file").set_input_files(
        {"name": name, "mimeType": "audio/wav", "buffer": wav_file(seconds)}
    )
    studio.page.get_by_label("Waveform of your recording").wait_for()
    studio.until("!document.getElementById('save-voice').disabled")
