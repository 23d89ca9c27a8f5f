"""Plans a text: cuts it into segments that Dia speaks well, and sets the silence between them.

Dia knows two speakers, [S1] and [S2], so a segment has two speakers of the text at most (see `recast`). A
segment may begin with [S2], although Dia prefers [S1] first: each tag selects a voice of the prompt.

A text of one or two speakers has one voice prompt, that of all its speakers, for all segments. In a text of
more speakers, or of two whose prompts leave no room together, each segment has the prompt of those who speak
in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dia_server.errors import Invalid
from dia_server.text import budget
from dia_server.text.budget import Budget
from dia_server.text.pack import MOST_TURNS, pack
from dia_server.text.speakers import Speakers, heard, recast, turns
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
    speakers: Speakers
    """Speakers of the segment and of its voice prompt; the segment may have only one of two."""


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


@dataclass(frozen=True, slots=True)
class PromptSize:
    """What the plan of the segments after a voice prompt depends on."""

    transcript: str
    frames: int
    """Number of codec frames; 0 if there is no prompt."""


NO_PROMPT = PromptSize("", 0)
NO_NAMES: Mapping[str, str] = MappingProxyType({})


def plan(
    text: str,
    prompt: Callable[[Speakers], PromptSize] = lambda _: NO_PROMPT,
    names: Mapping[str, str] = NO_NAMES,
    max_columns: int = budget.MAX_COLUMNS,
) -> Plan:
    """Cut tagged `text` (see `speakers.tag`) into segments. Each continues the voice prompt of its speakers.

    `prompt` returns the size of that prompt. `names` maps what the tags call to speakers (see `cast_turns`).
    `max_columns` is the number of decoder columns for a prompt and its segment.

    In a text whose segments share one prompt, the first of several segments may become an anchor: its audio,
    limited by ANCHOR, is added to the prompt of the other segments. Without a prompt it always does,
    preferably with all speakers of the text. With a prompt it does only if several segments have speakers
    that the prompt lacks, the anchor includes all of those speakers, and prompt and anchor leave room for the
    other segments.

    Raises Invalid if a prompt leaves no room for speech. Takes time linear in the length of `text`.
    """
    speakers = recast(heard(text, names))
    if speakers is None or _speak_apart(speakers, prompt, max_columns):
        return _plan_cast(text, prompt, names, max_columns)
    size = prompt(speakers)
    prompt_bytes = budget.encoded_length(size.transcript)
    room = budget.remaining_budget(prompt_bytes, size.frames, max_columns)
    found, pause_after_s = units(text, lambda _: room if size.frames else ANCHOR, names)
    prompted = {speakers.get(turn.speaker, turn.speaker) for turn in turns(size.transcript, "S1")}
    missing = _speakers(found) - prompted
    if size.frames:
        groups = pack(found, lambda *_: room, include=set())
        needs_anchor = sum(not missing.isdisjoint(_speakers(group)) for group in groups) > 1
    else:
        groups = [found] if found else []
        needs_anchor = not _is_one_segment(found, room)
    cut = _anchored(text, names, missing, size, max_columns) if needs_anchor else None
    groups, first, others = cut or (groups, room, room)
    utterances = [
        _utterance(group, others if index else first, end, speakers)
        for index, (group, end) in enumerate(zip(groups, _ends(groups), strict=True))
    ]
    return Plan(tuple(utterances), pause_after_s, anchored=cut is not None)


def _speak_apart(speakers: Speakers, prompt: Callable[[Speakers], PromptSize], max_columns: int) -> bool:
    """Return whether two speakers have prompts that leave no room for speech together."""
    if len(speakers) < 2 or _leaves_room(prompt(speakers), max_columns):
        return False
    return all(prompt({tag: speaker}).frames for tag, speaker in speakers.items())


def _leaves_room(size: PromptSize, max_columns: int) -> bool:
    return budget.leaves_room(budget.encoded_length(size.transcript), size.frames, max_columns)


def _plan_cast(
    text: str, prompt: Callable[[Speakers], PromptSize], names: Mapping[str, str], max_columns: int
) -> Plan:
    """Cut `text` into segments that each have the prompt of their own speakers."""
    rooms: dict[frozenset[str], Budget | None] = {}

    def room(speakers: frozenset[str], _: bool) -> Budget | None:
        if speakers not in rooms:
            rooms[speakers] = None if (tags := recast(speakers)) is None else room_of(tags)
        return rooms[speakers]

    def room_of(tags: Speakers) -> Budget | None:
        size = prompt(tags)
        if len(tags) > 1 and not _leaves_room(size, max_columns):
            return None  # each speaks in segments of their own
        return budget.remaining_budget(budget.encoded_length(size.transcript), size.frames, max_columns)

    def own(speaker: str) -> Budget:
        found = room(frozenset({speaker}), False)
        assert found is not None
        return found

    found, pause_after_s = units(text, own, names)
    groups = pack(found, room, include=set())
    utterances = []
    for group, end in zip(groups, _ends(groups), strict=True):
        limits, tags = room(frozenset(_speakers(group)), False), recast(_speakers(group))
        assert limits is not None
        assert tags is not None
        utterances.append(_utterance(group, limits, end, tags))
    return Plan(tuple(utterances), pause_after_s)


def _ends(groups: list[list[Unit]]) -> list[Cut]:
    """Return the kind of cut after each segment, PAUSE at the end of the text."""
    return [*(group[0].cut for group in groups[1:]), Cut.PAUSE][: len(groups)]


def _anchored(
    text: str, names: Mapping[str, str], missing: set[str], size: PromptSize, max_columns: int
) -> tuple[list[list[Unit]], Budget, Budget] | None:
    """Cut `text` so that the first segment can be the anchor of the others.

    Returns the segments, the budget of the first segment, and the budget of each other segment. Returns None
    if prompt and anchor leave too little room for the other segments, or if there is a prompt and the anchor
    lacks a speaker of `missing`.
    """
    prompt_bytes = budget.encoded_length(size.transcript)
    first = budget.remaining_budget(prompt_bytes, size.frames, max_columns).within(ANCHOR)
    space = 1 if prompt_bytes else 0
    try:
        others = budget.remaining_budget(
            prompt_bytes + space + ANCHOR.max_bytes, size.frames + ANCHOR.max_columns, max_columns
        )
    except Invalid:
        return None
    found, _ = units(text, lambda _: first.within(others), names)
    groups = pack(found, lambda _, is_first: first if is_first else others, include=missing)
    if size.frames and not missing <= _speakers(groups[0]):
        return None
    return groups, first, others


def _speakers(units: list[Unit]) -> set[str]:
    return {unit.speaker for unit in units}


def _is_one_segment(found: list[Unit], room: Budget) -> bool:
    turn_count = 1 + sum(unit.cut is Cut.TURN for unit in found[1:])
    seconds, size = sum(unit.seconds for unit in found), sum(unit.bytes for unit in found)
    pauses = any(unit.cut is Cut.PAUSE for unit in found[1:])
    return not pauses and turn_count <= MOST_TURNS and fits(seconds, size, turn_count, room)


def _utterance(group: list[Unit], room: Budget, end: Cut, speakers: Speakers) -> PlannedUtterance:
    """Build the utterance of a segment; `end` is the kind of cut after it, PAUSE at the end of the text."""
    tags = {speaker: tag for tag, speaker in speakers.items()}
    parts: list[str] = []
    speaker: str | None = None
    turn_count = 0
    for unit in group:
        if unit.speaker != speaker:
            parts.append(f" [{tags[unit.speaker]}] ")
            speaker, turn_count = unit.speaker, turn_count + 1
        parts.append(unit.text)
    text = " ".join("".join(parts).split())
    ending = "." if end in (Cut.PAUSE, Cut.TURN) and text[-1].isalnum() else ""
    if turn_count > 1:
        ending += " [S1]" if tags[group[-1].speaker] == "S2" else " [S2]"
    seconds = sum(unit.seconds for unit in group)
    return PlannedUtterance(
        text,
        ending,
        group[0].pause_s,
        GAPS_S[group[0].cut],
        seconds,
        min(room.max_columns, budget.columns(MAX_RATIO * seconds + SLACK_S)),
        speakers,
    )
