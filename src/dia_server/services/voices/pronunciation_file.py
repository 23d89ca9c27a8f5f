"""Pronunciations as a CSV file: `word,respelling,voice_id`, in UTF-8."""

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from dia_server.errors import Invalid, InvalidVoiceId, PayloadTooLarge
from dia_server.services.voices.pronunciations import MAX_ENTRIES, Pronunciation, checked
from dia_server.units import MIB

FIELD = "file"
"""Field of the form that holds the file."""
MAX_SIZE = MIB
"""Maximum bytes of a file."""
COLUMNS = ["word", "respelling", "voice_id"]
"""Columns of the file; the last one may be missing."""


def write(entries: Iterable[Pronunciation]) -> str:
    """Return a file with `entries`, which `read` reads."""
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(COLUMNS)
    rows.writerows((entry.word, entry.respelling, entry.voice_id) for entry in entries)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    """Number of the line in the file, from 1."""
    entry: Pronunciation
    """Pronunciation of the voice that the line names; the voice may not exist."""


def read(content: bytes) -> list[Line]:
    """Return the lines of a file; 1 MiB takes up to half a second.

    Raises PayloadTooLarge above MAX_SIZE, and Invalid with the line of what is no well-formed pronunciation.
    """
    if len(content) > MAX_SIZE:
        raise PayloadTooLarge(
            f"{FIELD}: too large; the limit is {MAX_SIZE:,} bytes", param=FIELD, limit=MAX_SIZE
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1  # the object is without a BOM
        raise _refusal(line, "not valid UTF-8") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[Line] = []
    try:
        header = next(rows, [])
        if header not in (COLUMNS, COLUMNS[:2]):
            raise _refusal(1, f"the columns must be {','.join(COLUMNS)}, separated by commas")
        for row in filter(None, rows):
            if len(found) == MAX_ENTRIES:
                raise _refusal(rows.line_num, f"the limit is {MAX_ENTRIES:,} pronunciations", MAX_ENTRIES)
            found.append(Line(rows.line_num, _entry(row, len(header), rows.line_num)))
    except csv.Error as error:
        raise _refusal(rows.line_num, f"not valid CSV: {error}") from error
    return found


def with_voices(lines: Iterable[Line], resolve: Callable[[str], str]) -> list[Pronunciation]:
    """Return the pronunciations in `lines`; `resolve` returns the id of an existing voice.

    Raises InvalidVoiceId for what `resolve` refuses, Invalid for a word that is there twice; with the line.
    """
    ids = {"": ""}
    found: dict[tuple[str, str], Pronunciation] = {}
    for line in lines:
        name = line.entry.voice_id
        try:
            voice_id = ids[name] if name in ids else ids.setdefault(name, resolve(name))
        except InvalidVoiceId as error:
            raise InvalidVoiceId(f"{FIELD}, line {line.number}: {error}", param=FIELD) from error
        entry = replace(line.entry, voice_id=voice_id)
        if entry.key in found:
            raise _refusal(line.number, f"the word {entry.word!r} is there twice")
        found[entry.key] = entry
    return list(found.values())


def _entry(row: list[str], columns: int, line: int) -> Pronunciation:
    if len(row) != columns:
        raise _refusal(line, f"{len(row)} columns, but the first line has {columns}")
    word, respelling, voice_id = [cell.strip() for cell in [*row, ""][:3]]
    try:
        return checked(word, respelling, voice_id)
    except Invalid as error:
        raise _refusal(line, str(error), error.limit) from error


def _refusal(line: int, cause: str, limit: float | None = None) -> Invalid:
    return Invalid(f"{FIELD}, line {line}: {cause}", param=FIELD, limit=limit)
