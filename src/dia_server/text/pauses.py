"""Pauses that a text asks for: "One moment [pause:1.5s] there it is", or "[pause:300ms]"."""

import re
from collections.abc import Iterator

PAUSE = re.compile(r"\[pause:\s?([0-9]{1,6}(?:\.[0-9]{1,6})?)\s?(ms|s)\]", re.IGNORECASE)

LONGEST_S = 10.0
"""Of silence in one place; what asks for more gets this."""


def passages(text: str) -> Iterator[tuple[float, str]]:
    """Split `text` at its pauses into (seconds of pause before, text); the first has a pause of 0."""
    first, *parts = PAUSE.split(text)
    yield 0.0, first
    for number, unit, passage in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        yield min(LONGEST_S, float(number) / (1000 if unit.lower() == "ms" else 1)), passage
