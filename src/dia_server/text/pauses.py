"""Pause markup in a text: "One moment [pause:1.5s] there it is", or "[pause:300ms]"."""

import re
from collections.abc import Iterator

PAUSE = re.compile(r"\[pause:\s?([0-9]{1,6}(?:\.[0-9]{1,6})?)\s?(ms|s)\]", re.IGNORECASE)

LONGEST_S = 10.0
"""Maximum seconds of a pause; longer pauses are shortened to this."""


def passages(text: str) -> Iterator[tuple[float, str]]:
    """Split `text` at its pauses: yield (seconds of a pause, text after the pause).

    The text before the first pause is yielded first, with 0 s.
    """
    first, *parts = PAUSE.split(text)
    yield 0.0, first
    for number, unit, passage in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        yield min(LONGEST_S, float(number) / (1000 if unit.lower() == "ms" else 1)), passage
