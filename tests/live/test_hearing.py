"""A server with a real Whisper, tiny.en, that hears recordings of real speech."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from dia_server.audio.decode import decode
from dia_server.engine.types import Samples
from dia_server.services.speech import WordCheck
from dia_server.services.voices.whisper import Whisper
from dia_server.text.word_errors import word_error_rate
from dia_server.units import SAMPLE_RATE
from tests.live.server import Server
from tests.speech_clips import WHISPER, Clip, load_clips

FOX = load_clips()["en/quick_brown_fox"]
COUNTING = load_clips()["en/counting"]
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


async def test_the_word_check_passes_right_words_and_fails_wrong_ones(whisper: Whisper) -> None:
    check = WordCheck(whisper.transcribe, CLOSE)
    samples = read(FOX)

    assert not await check.exceeds_limit(samples, f"[S1] {FOX.words}")
    assert await check.exceeds_limit(samples, f"[S1] {COUNTING.words}")
    assert await check.exceeds_limit(samples[: len(samples) // 2], f"[S1] {FOX.words}")  # its end is missing


def read(clip: Clip) -> Samples:
    with clip.path.open("rb") as file:
        return decode(file, SAMPLE_RATE)
