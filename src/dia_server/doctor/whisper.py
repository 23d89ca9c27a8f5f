"""Checks whether Whisper, which transcribes recordings, and its model are installed."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from dia_server.doctor.finding import Finding, note, ok, wrong
from dia_server.services.voices.whisper import SIZES
from dia_server.settings import Settings

FILES = ("config.json", "model.bin")
BY_HAND = "Until then transcripts are written by hand."


def check_whisper(conf: Settings) -> Iterator[Finding]:
    name = conf.whisper_model
    folder = Path(name)
    if importlib.util.find_spec("faster_whisper") is None:
        yield note("Whisper", f"faster-whisper is not installed. {BY_HAND}")
    elif folder.is_dir():
        lacking = [file for file in FILES if not (folder / file).exists()]
        if lacking:
            yield wrong("Whisper", f"{folder} lacks {', '.join(lacking)}. Set DIA_WHISPER_MODEL.")
        else:
            yield ok("Whisper", str(folder))
    elif name not in SIZES:
        yield wrong("Whisper", f"{name} is neither a folder nor a size of Whisper. Set DIA_WHISPER_MODEL.")
    elif (cached := _in_cache(name)) is not None:
        yield ok("Whisper", f"{name}, in {cached}")
    else:
        yield _download(name)


def _download(name: str) -> Finding:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return note("Whisper", f"{name} not on this machine, and HF_HUB_OFFLINE forbids downloads. {BY_HAND}")
    return note("Whisper", f"{name} not downloaded yet; the first transcription downloads it.")


def _in_cache(name: str) -> str | None:
    from faster_whisper import download_model
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return str(download_model(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
