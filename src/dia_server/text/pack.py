"""Which units go together into a piece: the cheapest of all ways to cut, by dynamic programming."""

from dia_server.text.budget import Budget
from dia_server.text.speakers import Speaker
from dia_server.text.units import Cut, Unit, fits

IDEAL_S = 12.0
SHORTEST_S = 5.0
"""Of a piece that sounds natural."""
GOOD_TURNS, MOST_TURNS = 4, 8

SEGMENT_COST = 0.15
"""Of each piece for itself: what lasts up to 19 s is not cut, and of a long text no piece is much longer
than the others, which it is made beside and would end after."""
CUT_COST = {
    Cut.PAUSE: 0.0,
    Cut.TURN: 0.0,
    Cut.SENTENCE: 0.1,
    Cut.CLAUSE: 0.6,
    Cut.WORD: 1.5,
    Cut.CHARACTER: 3.0,
}
SHORT_COST, TURN_COST, MISSING_SPEAKER_COST = 2.0, 0.5, 1.0
"""Of a piece with next to nothing in it; of each turn too many; of a speaker whom the first piece, which
the others take their voices from, does not let hear."""


def pack(units: list[Unit], first: Budget, others: Budget, *, include: set[Speaker]) -> list[list[Unit]]:
    """Group `units`, each of which fits alone, into pieces within the budgets of the first and the others.

    A pause is always a cut. The first piece is to have all those in it whom it must let `hear`, if it can.
    """
    best = [0.0] + [float("inf")] * len(units)
    starts = [0] * (len(units) + 1)
    for start in range(len(units)):
        room, missing_cost = (others, 0.0) if start else (first, MISSING_SPEAKER_COST)
        before = best[start] + CUT_COST[units[start].cut]
        seconds, size, turn_count = 0.0, 0, 0
        speaker: Speaker | None = None
        speakers: set[Speaker] = set()
        for end in range(start + 1, len(units) + 1):
            unit = units[end - 1]
            if end - 1 > start and unit.cut is Cut.PAUSE:
                break
            seconds, size = seconds + unit.seconds, size + unit.bytes
            turn_count += unit.speaker != speaker
            speaker = unit.speaker
            speakers.add(speaker)
            if turn_count > MOST_TURNS or not fits(seconds, size, turn_count, room):
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
