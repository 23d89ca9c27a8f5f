from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import pytest

from dia_server.engine.preview import Preview
from dia_server.engine.types import Samples, Utterance
from dia_server.errors import WhisperNotAvailable
from dia_server.services.speech.timestamps import Timing
from dia_server.services.speech.word_places import WordPlaces, reported
from dia_server.services.voices.whisper import Whisper
from dia_server.units import SAMPLE_RATE
from tests.hearing import SENTENCES, speak
from tests.speech_clips import WHISPER

WORDS = Timing("word", {}, 1.0)


@pytest.fixture(scope="module")
def speech() -> tuple[str, Samples, dict[int, int]]:
    """A segment of two speakers, its samples, and the starts of its words by espeak-ng."""
    preview = Preview(slots=1)
    text = f"[S1] {' '.join(SENTENCES[:2])} [S2] {' '.join(SENTENCES[2:4])}"
    chunks = speak(preview, Utterance(text, "aria+kai", seed=0))
    preview.close()
    starts = {word.character: word.sample for chunk in chunks for word in chunk.words}
    return text, np.concatenate([chunk.samples for chunk in chunks]), starts


@pytest.fixture
async def whisper() -> AsyncIterator[Whisper]:
    whisper = Whisper(str(WHISPER), idle_s=0)
    yield whisper
    await whisper.close()


async def test_whisper_finds_words_where_espeak_reports_them(
    whisper: Whisper, speech: tuple[str, Samples, dict[int, int]]
) -> None:
    text, samples, starts = speech

    heard = await WordPlaces(whisper.align, whisper.problem).heard(samples, text, WORDS)

    exact = await reported(samples, text, starts)
    assert [one.word for one in heard] == [one.word for one in exact]
    assert all(one.estimated for one in heard)
    errors = [
        abs(one.start - other.start) / SAMPLE_RATE
        for one, other in zip(heard, exact, strict=True)
        if not other.estimated
    ]
    assert len(errors) > 25
    assert np.median(errors) < 0.12


async def test_a_word_that_is_not_said_has_its_place_between_the_others(
    whisper: Whisper, speech: tuple[str, Samples, dict[int, int]]
) -> None:
    text, samples, _ = speech
    other = text.replace("canoe", "helicopter (laughs)")

    heard = await WordPlaces(whisper.align, whisper.problem).heard(samples, other, WORDS)

    words = [one.word.text for one in heard]
    at = words.index("helicopter")
    assert words[at - 1 : at + 3] == ["birch", "helicopter", "(laughs)", "slid"]
    assert all(one.end <= following.start for one, following in pairwise(heard))
    assert heard[at + 2].start / SAMPLE_RATE < 2.0


async def test_one_sentence_is_as_long_as_its_segment_and_needs_no_whisper() -> None:
    async def align(_: bytes, words: list[str]) -> list[float | None]:
        raise AssertionError(words)

    async def problem() -> None:
        return None

    samples = np.zeros(SAMPLE_RATE, np.float32)
    samples[10_000:30_000] = 0.1

    placed = await WordPlaces(align, problem).heard(samples, "[S1] One sentence.", Timing("sentence", {}, 1))

    assert placed[0].start == pytest.approx(10_000, abs=300)
    assert placed[-1].end == pytest.approx(30_000, abs=300)
    assert not any(one.estimated for one in placed)


async def test_words_are_refused_by_name_without_whisper() -> None:
    whisper = Whisper("/nowhere", idle_s=0)
    places = WordPlaces(whisper.align, whisper.problem)

    await places.require(Timing("segment", {}, 1.0))
    with pytest.raises(
        WhisperNotAvailable, match=r"timestamps: 'word' needs Whisper.*DIA_WHISPER_MODEL"
    ) as error:
        await places.require(WORDS)

    assert error.value.param == "timestamps"
    await whisper.close()
