from dataclasses import replace

import pytest

from dia_server.services.voices.transcription import Confidence
from tests.transcriptions import SPANISH, SURE, heard

ENGLISH_ONLY = replace(SURE, language=None, language_probability=None)


@pytest.mark.parametrize(
    "confidence",
    [
        SURE,
        replace(SURE, language_probability=0.7, average_log_probability=-0.9),
        replace(SURE, no_speech_probability=0.6),
        replace(ENGLISH_ONLY, average_log_probability=-0.73),
    ],
    ids=str,
)
def test_english_of_which_whisper_is_sure_needs_no_review(confidence: Confidence) -> None:
    assert not heard("Hello.", confidence).needs_review


@pytest.mark.parametrize(
    "confidence",
    [
        SPANISH,
        replace(SURE, language_probability=0.69),
        replace(SURE, average_log_probability=-0.91),
        replace(SURE, no_speech_probability=0.61),
        replace(ENGLISH_ONLY, average_log_probability=-0.74),
        replace(ENGLISH_ONLY, no_speech_probability=0.61),
    ],
    ids=str,
)
def test_other_speech_and_improbable_words_need_review(confidence: Confidence) -> None:
    assert heard("Thank you for watching.", confidence).needs_review


def test_a_sampled_transcript_needs_review() -> None:
    assert replace(heard("Hello."), is_sampled=True).needs_review
