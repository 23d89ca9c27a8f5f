"""The plan of a text: pieces that Dia can speak well, and the silence between them.

Pieces keep the tags of the text. One that [S2] speaks alone begins with [S2], although Dia likes to
begin with [S1]: the tags say which of a prompt's voices is meant, a prompt's transcript stands before
them, and to call [S2] another name in some pieces would change the voice from piece to piece.
"""

from dataclasses import dataclass

from dia_server.errors import Invalid
from dia_server.text import budget
from dia_server.text.budget import Budget
from dia_server.text.pack import MOST_TURNS, pack
from dia_server.text.speakers import Speaker, turns
from dia_server.text.units import Cut, Unit, fits, units

ANCHOR = Budget(max_bytes=384, max_s=10.0, max_columns=budget.columns(15.0))
"""Of the first piece where the others are to take their voices from it: it is then their prompt, and
what it may take at most is left free in their budgets."""

GAPS_S = {
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
    pause_s: float
    """Of silence before it that the text asks for: as long whatever the speed."""
    gap_s: float
    """Of silence before it that the text does not ask for, and a speaker makes: sooner over at a higher
    speed, as the speech is."""
    estimated_s: float
    """Of speech, the silence before it apart."""
    max_tokens: int
    """Decoder steps within which it ends."""


@dataclass(frozen=True, slots=True)
class Plan:
    utterances: tuple[PlannedUtterance, ...]
    """In order; none where the text holds nothing to say."""
    pause_after_s: float
    anchored: bool = False
    """Whether the first piece is to be the prompt of the others, behind the voice's own if there is one."""

    @property
    def pauses_s(self) -> float:
        """Of silence that the text asks for, in all."""
        return self.pause_after_s + sum(one.pause_s for one in self.utterances)

    def duration_s(self, speed: float) -> float:
        """Estimate the seconds of the whole."""
        return self.pauses_s + sum(one.gap_s + one.estimated_s for one in self.utterances) / speed


def plan(text: str, *, transcript: str = "", prompt_frames: int = 0) -> Plan:
    """Cut `text`, as `speakers.tag` returns it, into pieces beside a voice prompt.

    Without a prompt (`prompt_frames` 0) the first of several pieces is planned to be the prompt of the
    others: within ANCHOR, and with both speakers in it where that is possible. So it is, behind the voice's
    own prompt, where that one lets somebody not be heard who speaks in several pieces, if both leave room
    for the others and the first piece can have all who are missing. Raises Invalid where the prompt leaves
    no room for speech. The time it takes grows with the length of the text.
    """
    prompt_bytes = budget.encoded_length(transcript)
    room = budget.remaining_budget(prompt_bytes, prompt_frames)
    found, pause_after_s = units(text, room if prompt_frames else ANCHOR)
    missing = _speakers(found) - {turn.speaker for turn in turns(transcript, "S1")}
    if prompt_frames:
        groups = pack(found, room, room, include=set())
        needs_anchor = sum(not missing.isdisjoint(_speakers(group)) for group in groups) > 1
    else:
        groups = [found] if found else []
        needs_anchor = not _is_one_segment(found, room)
    cut = _anchored(text, missing, prompt_bytes, prompt_frames) if needs_anchor else None
    groups, first, others = cut or (groups, room, room)
    ends = [*(group[0].cut for group in groups[1:]), Cut.PAUSE]
    utterances = [
        _utterance(group, others if index else first, ends[index]) for index, group in enumerate(groups)
    ]
    return Plan(tuple(utterances), pause_after_s, anchored=cut is not None)


def _anchored(
    text: str, missing: set[Speaker], prompt_bytes: int, prompt_frames: int
) -> tuple[list[list[Unit]], Budget, Budget] | None:
    """Cut `text` so that the first piece can be the prompt of the others, behind the one that there may be.

    Returns the pieces and the budgets of the first and the others; None where it is not worth it.
    """
    first = budget.remaining_budget(prompt_bytes, prompt_frames).within(ANCHOR)
    space = 1 if prompt_bytes else 0
    try:
        others = budget.remaining_budget(
            prompt_bytes + space + ANCHOR.max_bytes, prompt_frames + ANCHOR.max_columns
        )
    except Invalid:
        return None
    groups = pack(units(text, first.within(others))[0], first, others, include=missing)
    if prompt_frames and not missing <= _speakers(groups[0]):
        return None
    return groups, first, others


def _speakers(units: list[Unit]) -> set[Speaker]:
    return {unit.speaker for unit in units}


def _is_one_segment(found: list[Unit], room: Budget) -> bool:
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
        group[0].pause_s,
        GAPS_S[group[0].cut],
        seconds,
        min(room.max_columns, budget.columns(LONGEST * seconds + SLACK_S)),
    )
