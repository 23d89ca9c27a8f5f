"""Whisper's models: their names, and where they are on this machine."""

from dataclasses import dataclass
from pathlib import Path

REPOSITORIES = {
    "tiny": "Systran/faster-whisper-tiny",
    "tiny.en": "Systran/faster-whisper-tiny.en",
    "base": "Systran/faster-whisper-base",
    "base.en": "Systran/faster-whisper-base.en",
    "small": "Systran/faster-whisper-small",
    "small.en": "Systran/faster-whisper-small.en",
    "medium": "Systran/faster-whisper-medium",
    "medium.en": "Systran/faster-whisper-medium.en",
    "large-v1": "Systran/faster-whisper-large-v1",
    "large-v2": "Systran/faster-whisper-large-v2",
    "large-v3": "Systran/faster-whisper-large-v3",
    "large": "Systran/faster-whisper-large-v3",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}
"""Repository on the Hugging Face Hub by model name, copied from faster-whisper, whose import takes 0.5 s."""
SIZES = tuple(REPOSITORIES)
"""Names of the available models; each is downloaded when it is first loaded."""
FILES = ("config.json", "model.bin")
"""Files without which a model cannot be loaded."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model is on this machine, or why it is not there."""

    folder: Path | None
    problem: str | None = None
    """Cause in a clause, if `folder` is None."""
    can_download: bool = False


def locate(name: str) -> Located:
    """Look for the model `name` (one of SIZES, or a folder); blocks, but does not use the network."""
    folder = Path(name)
    if folder.is_dir():
        lacking = [file for file in FILES if not (folder / file).exists()]
        return Located(None, f"the folder lacks {', '.join(lacking)}") if lacking else Located(folder)
    if name not in REPOSITORIES:
        return Located(None, f"neither a folder nor one of {', '.join(SIZES)}")
    from huggingface_hub import constants, try_to_load_from_cache

    paths = [try_to_load_from_cache(REPOSITORIES[name], file) for file in FILES]
    if all(isinstance(path, str) for path in paths):
        return Located(Path(str(paths[0])).parent)
    if constants.HF_HUB_OFFLINE:
        return Located(None, "not on this machine, and HF_HUB_OFFLINE forbids downloads")
    return Located(None, "not downloaded yet", can_download=True)
