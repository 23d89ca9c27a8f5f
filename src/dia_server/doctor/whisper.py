"""Checks whether Whisper, which transcribes recordings, and its model are installed."""

import importlib.util
from collections.abc import Iterator

from dia_server.doctor.finding import Finding, note, ok, wrong
from dia_server.services.voices.whisper_models import SIZES, locate
from dia_server.settings import Settings

BY_HAND = "Until then transcripts are written by hand."


def check_whisper(conf: Settings) -> Iterator[Finding]:
    name = conf.whisper_model
    if importlib.util.find_spec("faster_whisper") is None:
        yield note("Whisper", f"faster-whisper is not installed. {BY_HAND}")
        return
    found = locate(name)
    if found.folder is not None:
        yield ok("Whisper", f"{name}, in {found.folder}" if name in SIZES else name)
    elif found.can_download:
        yield note("Whisper", f"{name} {found.problem}; the first transcription downloads it.")
    elif name in SIZES:
        yield note("Whisper", f"{name} {found.problem}. {BY_HAND}")
    else:
        yield wrong("Whisper", f"{name}: {found.problem}. Set DIA_WHISPER_MODEL.")
