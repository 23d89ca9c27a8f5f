from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dia_server.audio.decode import decode
from dia_server.services.speech.word_check import WordCheck
from dia_server.services.voices.transcription import Transcription
from dia_server.services.voices.whisper import Whisper
from dia_server.units import SAMPLE_RATE
from tests.audio.signals import tone
from tests.transcriptions import heard


@pytest.mark.parametrize(
    ("transcript", "exceeds"),
    [("Hello, world.", False), ("Hello, word.", False), ("Yellow word.", True), ("", True)],
)
async def test_too_many_wrong_words_exceed_the_limit(transcript: str, exceeds: bool) -> None:
    async def transcribe(recording: bytes) -> Transcription:
        return heard(transcript)

    assert await WordCheck(transcribe, 0.5).exceeds_limit(tone(1), "[S1] Hello, world!") == exceeds


async def test_whisper_gets_the_generated_audio(tmp_path: Path) -> None:
    async def transcribe(recording: bytes) -> Transcription:
        (tmp_path / "recording.wav").write_bytes(recording)
        return heard("a tone")

    assert not await WordCheck(transcribe, 0.5).exceeds_limit(tone(1), "a tone")

    with (tmp_path / "recording.wav").open("rb") as file:
        assert len(decode(file, SAMPLE_RATE)) == SAMPLE_RATE


async def test_a_transcript_of_noise_exceeds_the_limit(whisper_folder: Path) -> None:
    whisper = Whisper(str(whisper_folder), idle_s=0)

    assert await WordCheck(whisper.transcribe, 0.5).exceeds_limit(tone(2), "These words are not there.")
    await whisper.close()


async def test_without_whisper_nothing_exceeds_and_the_log_says_so_once() -> None:
    whisper = Whisper("enormous", idle_s=0)
    check = WordCheck(whisper.transcribe, 0.5)

    with capture_logs() as logs:
        assert not await check.exceeds_limit(tone(1), "Hello")
        assert not await check.exceeds_limit(tone(1), "Hello")
    await whisper.close()

    (line,) = [line for line in logs if line["event"] == "words are not checked"]
    assert "enormous" in line["cause"]
