"""Result of one check."""

from dataclasses import dataclass
from typing import Literal

Grade = Literal["ok", "note", "wrong"]
"""`ok`: no problem. `note`: works, but the operator should know. `wrong`: the server cannot start, speak or
transcribe with these settings."""


@dataclass(frozen=True, slots=True)
class Finding:
    grade: Grade
    subject: str
    """Name of what was checked, in one or two words."""
    text: str
    """Sentence for the operator, with the remedy if there is one."""


def ok(subject: str, text: str) -> Finding:
    return Finding("ok", subject, text)


def note(subject: str, text: str) -> Finding:
    return Finding("note", subject, text)


def wrong(subject: str, text: str) -> Finding:
    return Finding("wrong", subject, text)
