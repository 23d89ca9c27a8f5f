"""Wrong words of decoded texts, as Whisper hears them."""

import asyncio
import importlib.util
from collections.abc import Callable, Sequence

import numpy as np

from dia_server.audio.encode import encode
from dia_server.engine.dia.codec import Codec
from dia_server.engine.dia.windows import Window, plan_chunk
from dia_server.engine.types import Samples
from dia_server.errors import WhisperNotAvailable
from dia_server.fidelity.decoding import Decoded
from dia_server.services.voices.whisper import Whisper
from dia_server.services.voices.whisper_models import locate
from dia_server.text.clean import clean
from dia_server.text.word_errors import count_wrong_words
from dia_server.units import SAMPLE_RATE


def check_whisper(model: str) -> None:
    """Raise WhisperNotAvailable if `model` is neither on this machine nor can be downloaded."""
    if importlib.util.find_spec("faster_whisper") is None:
        raise WhisperNotAvailable("--whisper needs faster-whisper, which is not installed")
    found = locate(model)
    if found.folder is None and not found.can_download:
        raise WhisperNotAvailable(f"--whisper {model}: {found.problem}")


def wrong_words_per_hundred(
    model: str,
    texts: Sequence[str],
    runs: Sequence[Sequence[Decoded]],
    codec: Codec,
    delay: Sequence[int],
    report: Callable[[int], None],
) -> list[float]:
    """Return the wrong words per hundred words of `texts` for each of `runs`, which decode all of them.

    `report` receives the number of texts that were heard, in all runs together. Raises WhisperNotAvailable.
    """
    return asyncio.run(_hear(model, texts, runs, codec, delay, report))


async def _hear(
    model: str,
    texts: Sequence[str],
    runs: Sequence[Sequence[Decoded]],
    codec: Codec,
    delay: Sequence[int],
    report: Callable[[int], None],
) -> list[float]:
    whisper = Whisper(model, idle_s=0)
    shares, heard = [], 0
    try:
        for run in runs:
            wrong = words = 0
            for text, decoded in zip(texts, run, strict=True):
                transcript = await _transcript(whisper, _audio(codec, decoded, delay))
                # Whisper writes "twenty" as "20"
                more, said = count_wrong_words(clean(text), clean(transcript))
                wrong, words, heard = wrong + more, words + said, heard + 1
                report(heard)
            shares.append(100 * wrong / max(1, words))
    finally:
        await whisper.close()
    return shares


async def _transcript(whisper: Whisper, samples: Samples) -> str:
    if not len(samples):
        return ""
    return (await whisper.transcribe(encode(samples, SAMPLE_RATE, "wav"))).text


def _audio(codec: Codec, decoded: Decoded, delay: Sequence[int]) -> Samples:
    """Decode the frames in the chunks of a stream, which take little memory."""
    frames, parts, emitted = decoded.frames(delay), [np.empty(0, np.float32)], 0
    while (span := plan_chunk(emitted, len(frames), True)) is not None:
        window = frames[span.start : span.stop]
        parts += codec.decode([Window(window, span.left, span.n)])  # type: ignore[arg-type]
        emitted += span.n
    return np.concatenate(parts)
