"""What a check found."""

from dataclasses import dataclass
from typing import Literal

Grade = Literal["ok", "note", "wrong"]
"""A note is what may surprise; what is wrong keeps the server from starting, speaking or hearing as set."""


@dataclass(frozen=True, slots=True)
class Finding:
    grade: Grade
    subject: str
    """One or two words."""
    text: str
    """A sentence for people, with what to do where there is something to do."""


def ok(subject: str, text: str) -> Finding:
    return Finding("ok", subject, text)


def note(subject: str, text: str) -> Finding:
    return Finding("note", subject, text)


def wrong(subject: str, text: str) -> Finding:
    return Finding("wrong", subject, text)
