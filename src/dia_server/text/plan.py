"""Plans a text: cuts it into segments that Dia speaks well, and sets the silence between them.

Segments keep the speaker tags of the text, so a segment can begin with [S2], although Dia prefers [S1] first.
Each tag selects a voice of the prompt, so renaming tags in some segments would change the voices there.
"""

from dataclasses import dataclass

from dia_server.errors import Invalid
from dia_server.text import budget
from dia_server.text.budget import Budget
from dia_server.text.pack import MOST_TURNS, pack
from dia_server.text.speakers import Speaker, turns
from dia_server.text.units import Cut, Unit, fits, units

ANCHOR = Budget(max_bytes=384, max_s=10.0, max_columns=budget.columns(15.0))
"""Limits of an anchor: a first segment whose audio is added to the voice prompt of the other segments (see
`plan`). The budgets of the other segments leave room for an anchor of this size."""

GAPS_S = {
    Cut.PAUSE: 0.0,
    Cut.TURN: 0.25,
    Cut.SENTENCE: 0.3,
    Cut.CLAUSE: 0.12,
    Cut.WORD: 0.0,
    Cut.CHARACTER: 0.0,
}
"""Seconds of natural silence before a segment at speed 1, by the kind of cut there: about what a human
reader leaves."""

MAX_RATIO, SLACK_S = 2.5, 3.0
"""Maximum duration of a segment: MAX_RATIO * estimate + SLACK_S seconds. The limit stops Dia from babbling
after a short text."""


@dataclass(frozen=True, slots=True)
class PlannedUtterance:
    """Utterance of one segment, and the silence before it."""

    text: str
    """Text with speaker tags: "[S1] Hello. [S2] Hi!". It begins with a tag, and tags alternate."""
    ending: str
    """Suffix for `text` that keeps the model from cutting off the last word; may be empty. It has a full stop
    if a turn, or the text before a pause, ends there without punctuation. It has the other speaker's tag if
    `text` has several turns."""
    pause_s: float
    """Seconds of silence before the segment by pause markup, the same at any speed."""
    gap_s: float
    """Seconds of natural silence before the segment at speed 1; it is divided by the speed, as speech is."""
    estimated_s: float
    """Estimated seconds of speech at speed 1, without the silence before the segment."""
    max_tokens: int
    """Maximum decode steps."""


@dataclass(frozen=True, slots=True)
class Plan:
    utterances: tuple[PlannedUtterance, ...]
    """One utterance for each segment, in order; empty if the text has nothing but tags and pauses."""
    pause_after_s: float
    """Seconds of silence after the last segment, by pause markup."""
    anchored: bool = False
    """Whether the first segment is an anchor: its audio is added to the prompt of the other segments."""

    @property
    def pauses_s(self) -> float:
        """Total seconds of silence by pause markup."""
        return self.pause_after_s + sum(one.pause_s for one in self.utterances)

    def duration_s(self, speed: float) -> float:
        """Return the estimated seconds of the whole recording at `speed`."""
        return self.pauses_s + sum(one.gap_s + one.estimated_s for one in self.utterances) / speed


def plan(text: str, *, transcript: str = "", prompt_frames: int = 0) -> Plan:
    """Cut tagged `text` (see `speakers.tag`) into segments. Each continues the voice prompt, if there is one.

    The first of several segments may become an anchor: its audio, limited by ANCHOR, is added to the prompt
    of the other segments. Without a prompt (`prompt_frames` is 0) it always does, preferably with all
    speakers of the text. With a prompt it does only if several segments have speakers that the prompt lacks,
    the anchor includes all of those speakers, and prompt and anchor leave room for the other segments.

    Raises Invalid if the prompt leaves no room for speech. Takes time linear in the length of `text`.
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
    """Cut `text` so that the first segment can be the anchor of the others.

    Returns the segments, the budget of the first segment, and the budget of each other segment. Returns None
    if prompt and anchor leave too little room for the other segments, or if there is a prompt and the anchor
    lacks a speaker of `missing`.
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
    """Build the utterance of a segment; `end` is the kind of cut after it, PAUSE at the end of the text."""
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
        min(room.max_columns, budget.columns(MAX_RATIO * seconds + SLACK_S)),
    )
