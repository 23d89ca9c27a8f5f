"""Voices and candidates as tables of text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class VoiceLine:
    voice_id: str
    name: str
    style: str
    sound: str
    """What the voice sounds like: its recording, its anchor, or nothing yet."""


class CandidateLine(Protocol):
    """A candidate, as the API or the service returns it."""

    @property
    def candidate_id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def duration(self) -> float | None: ...
    @property
    def faults(self) -> tuple[str, ...]: ...
    @property
    def pitch(self) -> float | None: ...
    @property
    def word_errors(self) -> float | None: ...
    @property
    def error(self) -> str | None: ...


class AnchorLine(Protocol):
    """An anchor, as the API or the service returns it."""

    @property
    def duration(self) -> float: ...
    @property
    def pitch(self) -> float | None: ...


def sound_of(recording: str | None, anchor: AnchorLine | None) -> str:
    """Return what a voice with this recording or anchor sounds like."""
    if recording is not None:
        return f"recording {recording}"
    if anchor is None:
        return "none yet"
    return f"anchor of {anchor.duration:.1f} s" + (f", {anchor.pitch:.0f} Hz" if anchor.pitch else "")


def voice_table(voices: Iterable[VoiceLine]) -> Iterator[str]:
    """Yield the lines of a table of voices."""
    rows = [("voice", "name", "style", "sound")]
    rows += [(one.voice_id, one.name, one.style, one.sound) for one in voices]
    yield from _aligned(rows)


def candidate_table(candidates: Iterable[CandidateLine]) -> Iterator[str]:
    """Yield the lines of a table of candidates, in the given order."""
    rows = [("candidate", "seed", "seconds", "pitch", "wrong words", "verdict")]
    for one in candidates:
        rows.append(
            (
                one.candidate_id,
                str(one.seed),
                "-" if one.duration is None else f"{one.duration:.1f}",
                "-" if one.pitch is None else f"{one.pitch:.0f} Hz",
                "-" if one.word_errors is None else f"{one.word_errors:.0%}",
                one.error or ", ".join(one.faults) or ("good" if one.status == "completed" else one.status),
            )
        )
    yield from _aligned(rows)


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
