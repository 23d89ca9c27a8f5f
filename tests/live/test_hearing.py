"""A server with a real Whisper, tiny.en, that hears recordings of real speech."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from dia_server.audio.decode import decode
from dia_server.audio.prompt import make
from dia_server.engine.types import Samples
from dia_server.services.speech import WordCheck
from dia_server.services.voices.transcription import Transcription
from dia_server.services.voices.whisper import Whisper
from dia_server.text.word_errors import word_error_rate
from dia_server.units import SAMPLE_RATE
from tests.live.server import Server
from tests.speech_clips import WHISPER, Clip, load_clips

CLIPS = load_clips()
ENGLISH = ["en/counting", "en/hello_world", "en/quick_brown_fox"]
FOREIGN = ["fr/bonjour_monde", "ja/konnichiwa_sekai", "pl/pangrama"]
"""Clips of other languages that take Whisper little time; the long test hears all."""
FOX = CLIPS["en/quick_brown_fox"]
COUNTING = CLIPS["en/counting"]
CLOSE = 0.2
"""Maximum word error rate of a transcript: two of the fox's nine words would be too many."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("hearing"), whisper_model=WHISPER, rate_limit_upload=0) as server:
        yield server


@pytest.fixture
async def whisper() -> AsyncIterator[Whisper]:
    whisper = Whisper(str(WHISPER), idle_s=0)
    yield whisper
    await whisper.close()


def upload(server: Server, prompt_id: str, clip: Clip, **fields: str) -> httpx.Response:
    answer = server.post(
        "/audio_prompts/upload",
        data={"prompt_id": prompt_id, **fields},
        files={"audio_file": (clip.path.name, clip.path.read_bytes())},
    )
    assert answer.status_code == 200, answer.text
    return answer


def test_an_upload_gets_the_words_of_its_recording(server: Server) -> None:
    transcript = upload(server, "fox", FOX).json()["transcript"]

    assert word_error_rate(FOX.words, transcript) <= CLOSE
    known = server.get("/audio_prompts/metadata/fox").json()
    assert (known["transcript"], known["transcript_source"]) == (transcript, "whisper_auto")


def test_whisper_replaces_a_wrong_transcript_on_request(server: Server) -> None:
    upload(server, "numbers", COUNTING, transcript=FOX.words)

    answer = server.post("/audio_prompts/numbers/transcribe").json()

    assert word_error_rate(COUNTING.words, answer["transcript"]) <= CLOSE
    known = server.get("/audio_prompts/metadata/numbers").json()
    assert (known["transcript"], known["transcript_source"]) == (answer["transcript"], "whisper_auto")
    assert server.get("/whisper/status").json()["model_loaded"]


def test_speech_in_another_language_is_not_cloned_until_its_transcript_is_confirmed(server: Server) -> None:
    answer = upload(server, "conteo", CLIPS["es/conteo"]).json()
    assert answer["needs_review"]
    server.post("/voice_mappings", json={"voice_id": "conteo", "audio_prompt": "conteo"}).raise_for_status()
    speak = {"text": "Hello.", "voice_id": "conteo"}

    refused = server.post("/generate", json=speak)

    assert (refused.status_code, refused.json()["error_code"]) == (422, "AUDIO_PROMPT_NOT_USABLE")
    server.put("/audio_prompts/conteo/transcript", json={"transcript": CLIPS["es/conteo"].words})
    assert server.post("/generate", json=speak).status_code == 200


@pytest.mark.full
async def test_speech_needs_review_unless_it_is_english(whisper: Whisper) -> None:
    held = [key for key in ENGLISH + FOREIGN if (await hear(whisper, CLIPS[key])).needs_review]

    assert held == FOREIGN


@pytest.mark.full
async def test_every_clip_is_held_back_unless_it_is_english(whisper: Whisper) -> None:
    passed = []
    print("\nclip | average log probability | no-speech probability | sampled | held back | transcript")
    for key, clip in CLIPS.items():
        heard = await hear(whisper, clip)
        confidence = heard.confidence
        print(
            key,
            f"{confidence.average_log_probability:.2f}",
            f"{confidence.no_speech_probability:.2f}",
            *(heard.is_sampled, heard.needs_review, heard.text),
            sep=" | ",
        )
        if not heard.needs_review:
            passed.append(key)

    assert passed == ENGLISH


async def test_the_word_check_passes_right_words_and_fails_wrong_ones(whisper: Whisper) -> None:
    check = WordCheck(whisper.transcribe, CLOSE)
    samples = read(FOX)

    assert not await check.exceeds_limit(samples, f"[S1] {FOX.words}")
    assert await check.exceeds_limit(samples, f"[S1] {COUNTING.words}")
    assert await check.exceeds_limit(samples[: len(samples) // 2], f"[S1] {FOX.words}")  # its end is missing


async def hear(whisper: Whisper, clip: Clip) -> Transcription:
    """Transcribe a clip as it is once it has been uploaded."""
    with clip.path.open("rb") as file:
        return await whisper.transcribe(make(file))


def read(clip: Clip) -> Samples:
    with clip.path.open("rb") as file:
        return decode(file, SAMPLE_RATE)
