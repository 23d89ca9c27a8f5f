"""A transcript by Whisper, and whether it can be trusted.

The limits were measured with tiny.en and base on real clips; docs/voices.md has a table.
"""

from dataclasses import dataclass

LANGUAGE = "en"
"""The language that Dia speaks, by Whisper's code."""
MIN_LANGUAGE_PROBABILITY = 0.7
"""Minimum probability of LANGUAGE; `base` gives it 0.8 and more in English clips, 0.6 and less in others."""
MIN_LOG_PROBABILITY = -0.9
"""Minimum average log probability of a transcript by a multilingual model; below it, the transcript needs
review. `base` gives English clips -0.77 and more."""
MIN_LOG_PROBABILITY_ENGLISH_ONLY = -0.73
"""The limit for an English-only model, which detects no language; `tiny.en` gives English clips -0.70 and
more, and other speech -0.76 and less."""
MAX_NO_SPEECH_PROBABILITY = 0.6
"""Maximum probability that nothing is spoken; Whisper's own limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    language: str | None
    """Whisper's code of the detected language, such as "es"; None if the model is English-only."""
    language_probability: float | None
    average_log_probability: float
    """Mean natural logarithm of the probabilities of the transcript's tokens."""
    no_speech_probability: float

    @property
    def is_low(self) -> bool:
        """Whether the recording may not be English, or its words may be wrong."""
        if self.no_speech_probability > MAX_NO_SPEECH_PROBABILITY:
            return True
        if self.language is None or self.language_probability is None:
            return self.average_log_probability < MIN_LOG_PROBABILITY_ENGLISH_ONLY
        return (
            self.language != LANGUAGE
            or self.language_probability < MIN_LANGUAGE_PROBABILITY
            or self.average_log_probability < MIN_LOG_PROBABILITY
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    text: str
    """The transcript; "" if nothing is spoken."""
    confidence: Confidence
    is_sampled: bool
    """Whether Whisper found its best transcript improbable or repetitive, and sampled another one."""

    @property
    def needs_review(self) -> bool:
        """Whether a person has to confirm the text before it is used."""
        return self.is_sampled or self.confidence.is_low
