"""Runs Whisper models with faster-whisper, inside a child process (native/)."""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dia_server.errors import WhisperNotAvailable
from dia_server.native.child import limit_memory
from dia_server.services.voices.transcription import LANGUAGE, Confidence, Transcription
from dia_server.services.voices.whisper_models import SIZES

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.transcribe import Segment

MEMORY = 8 * 1024**3
"""Maximum bytes of memory for transcription on a CPU, in addition to the loaded model. No limit applies on a
GPU, because CUDA reserves terabytes of addresses."""

SAMPLE_RATE = 16_000
"""Whisper's sample rate in Hz."""
WINDOW = 30 * SAMPLE_RATE
"""Samples that Whisper sees at once."""
MAX_TOKENS = 400
"""Maximum tokens of a text that is aligned; Whisper's decoder has 448 with its own."""


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

    def transcribe(self, recording: bytes) -> Transcription:
        """Transcribe an audio file; raises WhisperNotAvailable."""
        try:
            segments, info = self._model.transcribe(io.BytesIO(recording), condition_on_previous_text=False)
            parts = list(segments)
        except (RuntimeError, ValueError) as error:  # raised by CTranslate2, also when out of memory
            raise WhisperNotAvailable(f"Whisper failed: {error}") from error
        detects = self._model.model.is_multilingual
        return Transcription(
            text=" ".join(filter(None, (part.text.strip() for part in parts))),
            confidence=Confidence(
                language=info.language if detects else None,
                language_probability=info.language_probability if detects else None,
                average_log_probability=_average(parts, [part.avg_logprob for part in parts]),
                no_speech_probability=_average(parts, [part.no_speech_prob for part in parts]),
            ),
            is_sampled=any(part.temperature for part in parts),
        )

    def align(self, recording: bytes, words: list[str]) -> list[float | None]:
        """Return the second at which each of `words`, which the recording says, begins.

        Forced alignment: Whisper's cross-attention places the given words, whatever it would have heard. None
        for words beyond MAX_TOKENS. Raises WhisperNotAvailable.
        """
        from faster_whisper import decode_audio
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer

        model = self._model.model
        tokenizer = Tokenizer(
            self._model.hf_tokenizer, model.is_multilingual, task="transcribe", language=LANGUAGE
        )
        tokens = [tokenizer.encode(f" {word}") for word in words]
        firsts = [0, *accumulate(map(len, tokens))]
        flat = [token for one in tokens for token in one][:MAX_TOKENS]
        audio = decode_audio(io.BytesIO(recording), sampling_rate=SAMPLE_RATE)
        squeeze = max(1.0, len(audio) / WINDOW)
        if squeeze > 1:  # Whisper sees 30 s at once; a segment of Dia has at most 36 s
            audio = np.interp(np.arange(WINDOW) * squeeze, np.arange(len(audio)), audio).astype(np.float32)
        features = self._model.feature_extractor(audio)
        try:
            encoded = self._model.encode(pad_or_trim(features))
            (aligned,) = model.align(encoded, tokenizer.sot_sequence, [flat], features.shape[-1] - 1)
        except (RuntimeError, ValueError) as error:  # raised by CTranslate2, also when out of memory
            raise WhisperNotAvailable(f"Whisper failed: {error}") from error
        starts: dict[int, int] = {}
        for token, frame in aligned.alignments:
            starts.setdefault(token, frame)
        frame_s = squeeze / self._model.tokens_per_second
        return [
            starts[first] * frame_s if first in starts and first < len(flat) else None
            for first in firsts[:-1]
        ]

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


def _average(parts: Sequence["Segment"], values: Sequence[float]) -> float:
    """Return the mean of `values`, weighted by the tokens of the segments `parts`; 0 without segments."""
    tokens = [len(part.tokens) for part in parts]
    return sum((value * count for value, count in zip(values, tokens, strict=True)), 0.0) / max(
        1, sum(tokens)
    )
