"""Groups units into segments at the lowest total cost, found by dynamic programming."""

from collections.abc import Callable

from dia_server.text.budget import Budget
from dia_server.text.units import Cut, Unit, fits

IDEAL_S = 12.0
"""Seconds of speech at which a segment costs least."""
SHORTEST_S = 5.0
"""Seconds of speech below which a segment sounds unnatural and costs extra."""
GOOD_TURNS, MOST_TURNS = 4, 8
"""Maximum turns in a segment without extra cost, and maximum turns in any segment."""

SEGMENT_COST = 0.15
"""Cost of each segment. At 0.15, text of up to 19 s stays whole, and the segments of a long text, which are
generated side by side, are about equally long."""
CUT_COST = {
    Cut.PAUSE: 0.0,
    Cut.TURN: 0.0,
    Cut.SENTENCE: 0.1,
    Cut.CLAUSE: 0.6,
    Cut.WORD: 1.5,
    Cut.CHARACTER: 3.0,
}
"""Cost of starting a segment at each kind of cut."""
SHORT_COST, TURN_COST, MISSING_SPEAKER_COST = 2.0, 0.5, 1.0
"""Extra costs: up to SHORT_COST for a segment shorter than SHORTEST_S, TURN_COST for each turn beyond
GOOD_TURNS, and MISSING_SPEAKER_COST for each speaker that the first segment should include but lacks."""

Room = Callable[[frozenset[str], bool], Budget | None]
"""Returns the budget of a segment by its speakers, and by whether it is the first one. None if these speakers
cannot share a segment; then no more speakers can, and more speakers never have a larger budget."""


def pack(units: list[Unit], room: Room, *, include: set[str]) -> list[list[Unit]]:
    """Group `units` into segments at the lowest total cost.

    Each segment fits into its `room`. Each unit must by itself fit into the room of its speaker. A unit after
    a pause always starts a segment. The first segment should include the speakers in `include`: each speaker
    that it lacks costs MISSING_SPEAKER_COST.
    """
    best = [0.0] + [float("inf")] * len(units)
    starts = [0] * (len(units) + 1)
    for start in range(len(units)):
        missing_cost = 0.0 if start else MISSING_SPEAKER_COST
        before = best[start] + CUT_COST[units[start].cut]
        seconds, size, turn_count = 0.0, 0, 0
        speaker: str | None = None
        speakers: frozenset[str] = frozenset()
        limits: Budget | None = None
        for end in range(start + 1, len(units) + 1):
            unit = units[end - 1]
            if end - 1 > start and unit.cut is Cut.PAUSE:
                break
            seconds, size = seconds + unit.seconds, size + unit.bytes
            turn_count += unit.speaker != speaker
            speaker = unit.speaker
            if speaker not in speakers:
                speakers |= {speaker}
                limits = room(speakers, not start)
            if limits is None or turn_count > MOST_TURNS or not fits(seconds, size, turn_count, limits):
                break
            cost = before + _cost(seconds, turn_count) + missing_cost * len(include - speakers)
            if cost < best[end]:
                best[end], starts[end] = cost, start
    return _groups(units, starts)


def _cost(seconds: float, turn_count: int) -> float:
    cost = SEGMENT_COST + (seconds / IDEAL_S - 1) ** 2
    cost += SHORT_COST * max(0.0, 1 - seconds / SHORTEST_S)
    return cost + TURN_COST * max(0, turn_count - GOOD_TURNS)


def _groups(units: list[Unit], starts: list[int]) -> list[list[Unit]]:
    groups, end = [], len(units)
    while end:
        groups.append(units[starts[end] : end])
        end = starts[end]
    return groups[::-1]
