"""Whether Whisper tiny.en understands the preview's voices; `python -m benchmarks.hearing` prints a table."""

from collections.abc import Iterator, Sequence

import pytest

from dia_server.engine.preview import VOICES, Preview
from dia_server.text.clean import clean
from dia_server.text.clean.case import fold_mixed_case
from tests.heard_texts import HEARD
from tests.hearing import SENTENCES, Listener, say

LIMIT = 0.38
"""Maximum word error rate on SENTENCES. The voices have 0.27 to 0.35."""
FEW, FEW_LIMIT = SENTENCES[11:14], 0.3
"""Sentences that tell good voices from bad ones, and the maximum word error rate on them. aria and zara have
0.2; at a rate of 170 aria has 0.48, and with the variant f1 zara has 0.76."""

MOST_OF_PLAIN = 1.5
"""Maximum word error rate of cleaned texts, as a multiple of that of plain sentences."""


@pytest.fixture(scope="module")
def preview() -> Iterator[Preview]:
    preview = Preview(slots=1)
    yield preview
    preview.close()


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


def error_rate(preview: Preview, listener: Listener, voice: str, texts: Sequence[str]) -> float:
    return listener.error_rate(texts, [say(preview, text, voice) for text in texts])


def test_a_voice_is_understood(preview: Preview, listener: Listener) -> None:
    assert error_rate(preview, listener, "aria", FEW) < FEW_LIMIT


@pytest.mark.full
@pytest.mark.parametrize("voice", VOICES)
def test_every_voice_is_understood(preview: Preview, listener: Listener, voice: str) -> None:
    assert error_rate(preview, listener, voice, SENTENCES) < LIMIT


@pytest.mark.full
def test_cleaned_texts_are_understood_almost_like_plain_sentences(
    preview: Preview, listener: Listener
) -> None:
    rates = {}
    for category, pairs in HEARD.items():
        recordings = [say(preview, fold_mixed_case(clean(text)), "aria") for text, _ in pairs]
        rates[category] = listener.error_rate([words for _, words in pairs], recordings)

    assert max(rates.values()) <= MOST_OF_PLAIN * rates["plain"], rates
