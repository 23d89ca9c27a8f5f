"""The plan of a text: pieces that Dia can speak well, and the pauses between them.

Pieces keep the tags of the text. One that [S2] speaks alone begins with [S2], although Dia likes to
begin with [S1]: the tags say which of a prompt's voices is meant, a prompt's transcript stands before
them, and to call [S2] another name in some pieces would change the voice from piece to piece.
"""

from dataclasses import dataclass

from dia_server.text import budget
from dia_server.text.budget import Budget
from dia_server.text.pack import MOST_TURNS, pack
from dia_server.text.speakers import Speaker
from dia_server.text.units import Cut, Unit, fits, units

ANCHOR = Budget(max_bytes=384, max_s=10.0, max_columns=budget.columns(15.0))
"""Of the first piece where the others are to take their voices from it: it is then their prompt, and
what it may take at most is left free in their budgets."""

PAUSES_S = {
    Cut.PAUSE: 0.0,
    Cut.TURN: 0.25,
    Cut.SENTENCE: 0.3,
    Cut.CLAUSE: 0.12,
    Cut.WORD: 0.0,
    Cut.CHARACTER: 0.0,
}
"""Between pieces where the text does not ask for a pause: about what a reader makes there."""

LONGEST, SLACK_S = 2.5, 3.0
"""Times its estimate, and seconds on top, that a piece may last: Dia may babble after a short text."""


@dataclass(frozen=True, slots=True)
class PlannedUtterance:
    text: str
    """What is said, with speaker tags: "[S1] Hello. [S2] Hi!". It begins with one, and they alternate."""
    ending: str
    """To be put behind `text` for the model, so that the last word is not cut: a full stop where a
    sentence has none, and after a dialogue the tag of who would be next. No word."""
    pause_before_s: float
    estimated_s: float
    """Of speech, the pause before it apart."""
    max_tokens: int
    """Decoder steps within which it ends."""


@dataclass(frozen=True, slots=True)
class Plan:
    utterances: tuple[PlannedUtterance, ...]
    """In order; none where the text holds nothing to say."""
    pause_after_s: float

    @property
    def estimated_s(self) -> float:
        """Seconds of the whole, with all pauses."""
        return self.pause_after_s + sum(one.pause_before_s + one.estimated_s for one in self.utterances)


def plan(text: str, *, transcript: str = "", prompt_frames: int = 0) -> Plan:
    """Cut `text`, as `speakers.tag` returns it, into pieces beside a voice prompt.

    Without a prompt (`prompt_frames` 0) the first of several pieces is planned to be the prompt of the
    others: within ANCHOR, and with both speakers in it where that is possible. Raises Invalid where the
    prompt leaves no room for speech. The time it takes grows with the length of the text.
    """
    room = budget.beside(budget.encoded_length(transcript), prompt_frames)
    found, pause_after_s = units(text, room if prompt_frames else ANCHOR)
    if prompt_frames:
        first = rest = room
        groups = pack(found, room, room, hear_all=False)
    elif _is_one_piece(found, room):
        first = rest = room
        groups = [found] if found else []
    else:
        first, rest = ANCHOR, budget.beside(ANCHOR.max_bytes, ANCHOR.max_columns)
        groups = pack(found, first, rest, hear_all=True)
    ends = [*(group[0].cut for group in groups[1:]), Cut.PAUSE]
    utterances = [
        _utterance(group, rest if index else first, ends[index]) for index, group in enumerate(groups)
    ]
    return Plan(tuple(utterances), pause_after_s)


def _is_one_piece(found: list[Unit], room: Budget) -> bool:
    turn_count = 1 + sum(unit.cut is Cut.TURN for unit in found[1:])
    seconds, size = sum(unit.seconds for unit in found), sum(unit.bytes for unit in found)
    pauses = any(unit.cut is Cut.PAUSE for unit in found[1:])
    return not pauses and turn_count <= MOST_TURNS and fits(seconds, size, turn_count, room)


def _utterance(group: list[Unit], room: Budget, end: Cut) -> PlannedUtterance:
    """Put a piece together; `end` is what follows it."""
    parts: list[str] = []
    speaker: Speaker | None = None
    turn_count = 0
    for unit in group:
        if unit.speaker != speaker:
            parts.append(f" [{unit.speaker}] ")
            speaker, turn_count = unit.speaker, turn_count + 1
        parts.append(unit.text)
    text = " ".join("".join(parts).split())
    ending = "." if end in (Cut.PAUSE, Cut.TURN) and text[-1].isalnum() else ""
    if turn_count > 1:
        ending += " [S1]" if speaker == "S2" else " [S2]"
    seconds = sum(unit.seconds for unit in group)
    return PlannedUtterance(
        text,
        ending,
        group[0].pause_s + PAUSES_S[group[0].cut],
        seconds,
        min(room.max_columns, budget.columns(LONGEST * seconds + SLACK_S)),
    )
