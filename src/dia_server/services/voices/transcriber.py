"""Runs Whisper models with faster-whisper, inside a child process (native/)."""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dia_server.errors import WhisperNotAvailable
from dia_server.native.child import limit_memory

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

SIZES = (
    *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
    *("large-v1", "large-v2", "large-v3", "large", "large-v3-turbo", "turbo"),
    *("distil-small.en", "distil-medium.en", "distil-large-v2", "distil-large-v3", "distil-large-v3.5"),
)
"""Names of the available models; each is downloaded when it is first loaded."""
MEMORY = 8 * 1024**3
"""Maximum bytes of memory for transcription on a CPU, in addition to the loaded model. No limit applies on a
GPU, because CUDA reserves terabytes of addresses."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A device on which the model could not be opened, and the cause."""

    device: str
    number_format: str
    cause: str


@dataclass(frozen=True, slots=True)
class Opened:
    device: str
    refusals: list[Refusal]


class Transcriber:
    def __init__(self, name: str, devices: Sequence[tuple[str, str]]) -> None:
        """Open the model `name` (one of SIZES, or a folder) on the first usable one of `devices`.

        `devices` are pairs of device and number format. Raises WhisperNotAvailable with the cause.
        """
        self._refusals: list[Refusal] = []
        try:
            self._model, self._device = self._open(name, devices)
        except Exception as error:
            cause = str(error).strip().partition("\n")[0] or type(error).__name__
            raise WhisperNotAvailable(cause) from error
        if self._device == "cpu":
            limit_memory(MEMORY)

    def opened(self) -> Opened:
        return Opened(self._device, self._refusals)

    def transcribe(self, recording: bytes) -> str:
        """Return the transcript of an audio file; raises WhisperNotAvailable."""
        try:
            segments, _ = self._model.transcribe(io.BytesIO(recording), condition_on_previous_text=False)
            return " ".join(filter(None, (segment.text.strip() for segment in segments)))
        except (RuntimeError, ValueError) as error:  # raised by CTranslate2, also when out of memory
            raise WhisperNotAvailable(f"Whisper failed: {error}") from error

    def _open(self, name: str, devices: Sequence[tuple[str, str]]) -> tuple["WhisperModel", str]:
        is_folder = Path(name).is_dir()
        if not is_folder and name not in SIZES:
            raise ValueError(f"neither a folder nor one of {', '.join(SIZES)}")
        sys.modules["torch"] = None  # type: ignore[assignment]  # CTranslate2 would import it, which takes 1 s
        from ctranslate2 import get_cuda_device_count
        from faster_whisper import WhisperModel, download_model

        folder = name if is_folder else download_model(name)
        failure: Exception = RuntimeError("no usable device")
        for device, number_format in devices:
            if device == "cuda" and not get_cuda_device_count():
                continue
            try:
                model = WhisperModel(folder, device=device, compute_type=number_format)
                if device == "cuda":  # missing CUDA libraries are only noticed at the first use
                    list(model.transcribe(np.zeros(16_000, np.float32), language="en", temperature=0)[0])
            except (RuntimeError, ValueError) as error:
                self._refusals.append(Refusal(device, number_format, str(error)))
                failure = error
            else:
                return model, device
        raise failure
