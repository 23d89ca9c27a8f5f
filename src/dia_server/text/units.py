"""Cuts a text into units, the smallest parts of a plan: segments are cut between units, never within one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from dia_server.text import split
from dia_server.text.budget import Budget, encoded_length, speaking_time
from dia_server.text.pauses import LONGEST_S, passages
from dia_server.text.speakers import cast_turns, last_speaker

GRAIN_S = 2.0
"""Maximum seconds of a unit merged from short parts: smaller units would not improve a plan."""
TURN_BYTES = 3
"""Bytes of a speaker tag and the two spaces around it, encoded for Dia."""
ENDING_BYTES = 3
"""Maximum bytes of a segment's ending, encoded for Dia: a full stop, a space and a tag."""


class Cut(Enum):
    """Kinds of boundary before a unit, from the best to the worst place to start a segment."""

    PAUSE = "pause"
    TURN = "turn"
    SENTENCE = "sentence"
    CLAUSE = "clause"
    WORD = "word"
    CHARACTER = "character"


@dataclass(frozen=True, slots=True)
class Unit:
    """Smallest part of a turn: segments consist of whole units."""

    speaker: str
    """Speaker of the text, who may be neither S1 nor S2."""
    text: str
    """Text without tags, including the space after it."""
    cut: Cut
    pause_s: float
    """Seconds of silence before the unit by pause markup; 0 unless `cut` is PAUSE."""
    seconds: float
    """Estimated seconds of speech."""
    bytes: int
    """Bytes of `text` for Dia's encoder."""


_Split = tuple[Cut, Callable[[str], list[str]]]
_SPLITS: tuple[_Split, ...] = (
    (Cut.SENTENCE, split.sentences),
    (Cut.CLAUSE, split.clauses),
    (Cut.WORD, split.words),
    (Cut.CHARACTER, split.characters),
)


def units(text: str, room: Callable[[str], Budget], names: Mapping[str, str]) -> tuple[list[Unit], float]:
    """Cut tagged `text` into units; each fits into the `room` of its speaker.

    `names` maps what tags call to speakers. Returns the units, and the seconds of pause after the last unit.
    """
    found: list[Unit] = []
    speaker = "S1"
    pause_s = 0.0
    for asked_s, passage in passages(text):
        pause_s = min(LONGEST_S, pause_s + asked_s)
        cut = Cut.PAUSE  # the start of the text counts as a pause
        for turn in cast_turns(passage, speaker, names):
            for part_cut, part in _parts(turn.text, cut, room(turn.speaker), _SPLITS):
                seconds, size = speaking_time(part), encoded_length(part)
                found.append(Unit(turn.speaker, part, part_cut, pause_s, seconds, size))
                pause_s = 0.0
            cut = Cut.TURN
        speaker = last_speaker(passage, speaker, names)
    return found, pause_s


def fits(seconds: float, size: int, turn_count: int, room: Budget) -> bool:
    """Return whether text of `seconds` and `size` bytes, plus its tags and ending, fits into `room`.

    `size` is without the tags of the `turn_count` turns; the columns of `room` are not checked.
    """
    return seconds <= room.max_s and size + turn_count * TURN_BYTES + ENDING_BYTES <= room.max_bytes


def _parts(text: str, cut: Cut, room: Budget, splits: Sequence[_Split]) -> Iterator[tuple[Cut, str]]:
    """Cut `text` with the first of `splits`; cut parts that do not fit into `room` with the next.

    Short neighbouring parts are merged (see `_runs`). Yields each part with the kind of cut before it; `cut`
    is the cut before the first part.
    """
    (finer_cut, finer), *finer_splits = splits
    for part in _runs(finer(text), room):
        if finer_splits and not fits(speaking_time(part), encoded_length(part), 1, room):
            yield from _parts(part, cut, room, finer_splits)
        else:
            yield cut, part
        cut = finer_cut


def _runs(parts: list[str], room: Budget) -> Iterator[str]:
    """Merge neighbouring parts while they fit into GRAIN_S and `room`; a larger part is yielded unchanged."""
    run, run_s, run_bytes = "", 0.0, 0
    for part in parts:
        seconds, size = speaking_time(part), encoded_length(part)
        if run and (run_s + seconds > GRAIN_S or not fits(run_s + seconds, run_bytes + size, 1, room)):
            yield run
            run, run_s, run_bytes = "", 0.0, 0
        run, run_s, run_bytes = run + part, run_s + seconds, run_bytes + size
    if run:
        yield run
