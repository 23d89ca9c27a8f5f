"""What an engine has done since it was started: counts that its thread adds to and anybody reads."""

from dataclasses import astuple, dataclass
from typing import Self


@dataclass(slots=True)
class Work:
    steps: int = 0
    """Calls of the model's `step`; for Dia one is a poll of several decoder steps."""
    slot_steps: int = 0
    """Busy slots, summed over the steps: divided by `steps` it is the mean batch."""
    tokens: int = 0
    """Decoder steps of all utterances."""
    samples: int = 0
    """At SAMPLE_RATE, before any change of speed."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
