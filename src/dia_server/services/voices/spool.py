"""Temporary files for recordings that clients send, and their conversion to the format of prompts."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


class Spool:
    """All methods block."""

    def __init__(self, path: Path, make: Callable[[BinaryIO], bytes]) -> None:
        """`make` converts an audio file of any format to a prompt's WAV file, or raises UnusableAudio."""
        self.path = path
        self.make = make

    def spool(self) -> BinaryIO:
        """Open a temporary file on the folder's disk; it is removed on close or when the server dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self.path, prefix=".", suffix=".tmp")

    def convert(self, recording: bytes) -> bytes:
        """Return the prompt's WAV file made of an audio file of any format; nothing stays in the folder.

        Raises as `make`, and OSError.
        """
        with self.spool() as file:
            file.write(recording)
            file.seek(0)
            return self.make(file)
