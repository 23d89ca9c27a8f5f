"""When each segment, turn, sentence or word of a recording is said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import msgspec

from dia_server.text.said_words import SaidWord
from dia_server.text.speakers import TAG, Speakers, turns
from dia_server.units import SAMPLE_RATE

Granularity = Literal["segment", "turn", "sentence", "word"]

TEMPO_LEAD_S = 0.023
"""Seconds at speed 1 by which a sound after silence begins early if the speed is changed: half a window of
FFmpeg's atempo, which fades into the sound. Measured with speeds from 0.5 to 2."""


class Timestamp(msgspec.Struct, frozen=True, kw_only=True):
    start: float
    """Seconds from the start of the recording."""
    end: float
    text: str
    speaker: str | None
    """Speaker of the text, such as "S1"; None if several speakers say it."""
    voice: str | None
    """Voice id of the speaker; None if several speakers say it."""
    estimated: bool
    """False: exact to 20 ms. True: placed by Whisper, or interpolated."""


@dataclass(frozen=True, slots=True)
class PlacedWord:
    """A word of a segment, and its first and last sample (exclusive) in the segment."""

    word: SaidWord
    start: int
    end: int
    estimated: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """The timestamps that a request asks for."""

    granularity: Granularity
    voices: Mapping[str, str]
    """Voice id of each speaker."""
    speed: float

    def of_segment(self, text: str, speakers: Speakers, sound: tuple[int, int]) -> Timestamp:
        """Return the timestamp of a whole segment; `sound` are its first and last sample (exclusive).

        `speakers` maps the tags of the segment to the speakers of the recording.
        """
        said = turns(text, "S1")
        if len({turn.speaker for turn in said}) == 1:
            speaker = speakers[said[0].speaker]
            return self._timestamp(" ".join(turn.text for turn in said), speaker, *sound)
        return self._timestamp(TAG.sub(lambda tag: f"[{speakers[tag[1]]}]", text), None, *sound)

    def of_words(
        self, placed: Sequence[PlacedWord], speakers: Speakers, origin: int, sound: tuple[int, int]
    ) -> list[Timestamp]:
        """Return the timestamps of a segment's turns, sentences or words.

        `origin` is the index in the recording of the segment's first sample, the others as in `of_segment`.
        """
        found: list[Timestamp] = []
        for _, grouped in groupby(enumerate(placed), lambda item: self._number(item[0], item[1].word)):
            group = [one for _, one in grouped]
            start, end = (
                min(max(place + origin, sound[0]), sound[1]) for place in (group[0].start, group[-1].end)
            )
            if start < end:
                earliest = found[-1].end if found else 0.0
                found.append(
                    self._timestamp(
                        " ".join(one.word.text for one in group),
                        speakers[group[0].word.speaker],
                        start,
                        end,
                        estimated=group[0].estimated or group[-1].estimated,
                        earliest=earliest,
                    )
                )
        return found

    def groups(self, words: Sequence[SaidWord]) -> int:
        """Return how many timestamps the `words` of a segment have."""
        return len({self._number(index, word) for index, word in enumerate(words)})

    def _number(self, index: int, word: SaidWord) -> int:
        return {"turn": word.turn, "sentence": word.sentence}.get(self.granularity, index)

    def _timestamp(
        self,
        text: str,
        speaker: str | None,
        start: int,
        end: int,
        *,
        estimated: bool = False,
        earliest: float = 0.0,
    ) -> Timestamp:
        lead_s = 0.0 if self.speed == 1.0 else TEMPO_LEAD_S
        start_s = round(max(earliest, (start / SAMPLE_RATE - lead_s) / self.speed), 3)
        end_s = round(end / SAMPLE_RATE / self.speed, 3)
        voice = None if speaker is None else self.voices.get(speaker)
        return Timestamp(
            start=start_s, end=end_s, text=text, speaker=speaker, voice=voice, estimated=estimated
        )
