"""What a listener hears of the preview's voices: word errors by a real Whisper, rate of speech and pitch."""

import io
from collections.abc import Sequence

import numpy as np

from dia_server.audio.encode import encode
from dia_server.engine.preview import Preview
from dia_server.engine.types import Chunk, Samples, Utterance
from dia_server.text.word_errors import word_error_rate
from dia_server.units import SAMPLE_RATE
from tests.speech_clips import WHISPER

SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.",
    "A rod is used to catch pink salmon.",
    "The source of the huge river is the clear spring.",
    "Kick the ball straight and follow through.",
    "Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening.",
    "Smoky fires lack flame and heat.",
    "The soft cushion broke the man's fall.",
    "The salt breeze came across from the sea.",
    "The girl at the booth sold fifty bonds.",
)
"""Lists 1 and 2 of the Harvard sentences (IEEE, 1969), which contain the sounds of English as often as speech
does. Few of their words can be guessed from the others."""
SEMITONE = 2 ** (1 / 12)


class Listener:
    """Whisper tiny.en with greedy decoding: the same audio gives the same transcript."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        self._model = WhisperModel(str(WHISPER), device="cpu", compute_type="float32")
        # the mapping of British spellings is left out: the sentences have none
        self._normalize = EnglishTextNormalizer({})

    def transcribe(self, samples: Samples) -> str:
        """Return the transcript of `samples`, mono at SAMPLE_RATE."""
        segments, _ = self._model.transcribe(
            io.BytesIO(encode(samples, SAMPLE_RATE, "wav")), beam_size=1, temperature=0.0
        )
        return " ".join(segment.text.strip() for segment in segments)

    def error_rate(self, texts: Sequence[str], recordings: Sequence[Samples]) -> float:
        """Return the word error rate of all `recordings`, each of which should say the text of its place.

        Texts and transcripts pass through Whisper's normalizer. A text has at most as many errors as words,
        because Whisper sometimes goes on with words that no sound stands for.
        """
        errors = words = 0.0
        for text, recording in zip(texts, recordings, strict=True):
            expected, heard = self._normalize(text), self._normalize(self.transcribe(recording))
            length = len(expected.split())
            errors += length * min(1.0, word_error_rate(expected, heard))
            words += length
        return errors / words


def speak(preview: Preview, utterance: Utterance) -> list[Chunk]:
    """Return the chunks of `utterance`, spoken in the first slot of `preview`."""
    preview.admit(0, utterance)
    chunks: list[Chunk] = []
    while not chunks or not chunks[-1].done:
        for chunk in preview.step().values():
            assert isinstance(chunk, Chunk)
            chunks.append(chunk)
    preview.release(0)
    return chunks


def say(preview: Preview, text: str, voice: str) -> Samples:
    """Return `text` as `voice` says it, mono at SAMPLE_RATE."""
    chunks = speak(preview, Utterance(f"[S1] {text}", voice, seed=0))
    return np.concatenate([chunk.samples for chunk in chunks])


def words_per_minute(texts: Sequence[str], recordings: Sequence[Samples]) -> float:
    """Return the rate of speech, without the silence before and after each text."""
    samples = sum(_spoken_length(recording) for recording in recordings)
    return sum(len(text.split()) for text in texts) / (samples / SAMPLE_RATE / 60)


def median_pitch(samples: Samples) -> float:
    """Return the median fundamental frequency in Hz, 60 to 600, by autocorrelation over 40 ms frames."""
    size, lags = SAMPLE_RATE // 25, np.arange(SAMPLE_RATE // 600, SAMPLE_RATE // 60)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    loud = frames[np.abs(frames).max(1) > 0.3 * np.abs(samples).max()]
    spectrum = np.fft.rfft(loud - loud.mean(1, keepdims=True), 2 * size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:, lags]
    return float(SAMPLE_RATE / np.median(lags[correlation.argmax(1)]))


def _spoken_length(samples: Samples) -> int:
    """Return the number of samples from the first to the last that exceeds 2 % of the peak."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return int(loud[-1] - loud[0] + 1)
