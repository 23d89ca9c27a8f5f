"""Places the words of a segment: by the engine's own reports, or by Whisper where it has none."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from dia_server.audio.encode import encode
from dia_server.audio.word_bounds import word_bounds
from dia_server.engine.types import Samples
from dia_server.errors import WhisperNotAvailable
from dia_server.services.speech.timestamps import PlacedWord, Timing
from dia_server.text.said_words import SaidWord, said_words
from dia_server.units import SAMPLE_RATE

LATENESS_S = 0.12
"""Seconds by which Whisper's starts of words are late: the median of tiny.en on 310 words of the preview."""
SLACK_S = 0.03
"""Maximum seconds between a word's start and the silence before it."""

Align = Callable[[bytes, list[str]], Awaitable[list[float | None]]]
"""Returns the second at which each word begins in an audio file, None if it is not known."""


class WordPlaces:
    def __init__(self, align: Align, problem: Callable[[], Awaitable[str | None]]) -> None:
        """`problem` says why `align` cannot be called at present; None if it can."""
        self._align = align
        self._problem = problem

    async def require(self, timing: Timing) -> None:
        """Raise WhisperNotAvailable if `timing` needs Whisper on Dia, and it is not available."""
        if timing.granularity != "segment" and (problem := await self._problem()) is not None:
            raise WhisperNotAvailable(
                f"timestamps: {timing.granularity!r} needs Whisper, which finds it within a segment of Dia, "
                f"and 'segment' does not: {problem}",
                param="timestamps",
            )

    async def heard(self, samples: Samples, text: str, timing: Timing) -> list[PlacedWord]:
        """Place the words of a segment of Dia: `samples` say the tagged `text`; raises as `align`."""
        words = said_words(text, sounds=True)
        starts: list[int | None] = [None] * len(words)
        if timing.groups(words) > 1:
            spoken = [index for index, word in enumerate(words) if not word.is_sound]
            file = await asyncio.to_thread(encode, samples, SAMPLE_RATE, "wav")
            found = await self._align(file, [words[index].text for index in spoken]) if spoken else []
            for index, second in zip(spoken, found, strict=True):
                if second is not None:
                    starts[index] = max(0, round((second - LATENESS_S) * SAMPLE_RATE))
        placed = await asyncio.to_thread(_placed, samples, words, starts)
        if timing.groups(words) <= 1:  # one turn or sentence is as long as the segment
            return [PlacedWord(one.word, one.start, one.end, False) for one in placed]
        return [PlacedWord(one.word, one.start, one.end, True) for one in placed]


async def reported(samples: Samples, text: str, starts: Mapping[int, int]) -> list[PlacedWord]:
    """Place the words of a segment by the engine's reports.

    `starts` maps indexes in the tagged `text` to indexes in `samples`.
    """
    words = said_words(text, sounds=False)
    first: list[int | None] = [None] * len(words)
    for character, sample in sorted(starts.items(), key=lambda item: item[1]):
        index = next((index for index, word in enumerate(words) if word.end > character), None)
        if index is not None and first[index] is None:
            first[index] = sample
    return await asyncio.to_thread(_placed, samples, words, first)


def _placed(samples: Samples, words: Sequence[SaidWord], starts: Sequence[int | None]) -> list[PlacedWord]:
    lengths = [len(word.text) for word in words]
    bounds = word_bounds(samples, SAMPLE_RATE, starts, lengths, slack_s=SLACK_S)
    return [
        PlacedWord(word, place.start, place.end, place.estimated)
        for word, place in zip(words, bounds, strict=True)
    ]
