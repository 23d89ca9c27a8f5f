"""Metadata of an audio prompt, as stored in the database."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, Self

from dia_server.db.models import AudioPrompt
from dia_server.services.voices.transcription import LANGUAGE, Confidence
from dia_server.units import SAMPLE_RATE

Source = Literal["reference", "txt", "manual", "whisper_auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    prompt_id: str
    digest: str
    """SHA-256 of the WAV file."""
    duration: float
    """Duration of the recording in seconds."""
    file_size: int
    """Size of the WAV file in bytes."""
    transcript: str | None
    transcript_source: Source | None
    sidecar_digest: str | None
    """`Sidecar.digest` of the transcript file that was last read or written; None if there is none."""
    confidence: Confidence | None
    """Whisper's confidence in the transcript; None if it is a person's, or older than these values."""
    needs_review: bool
    """Whether the transcript is a draft by Whisper, which no voice uses until a person has confirmed it."""
    created_at: datetime
    consent: str | None = None
    """Statement of the speaker's consent, as the client sent it; "" if it sent none. None if the recording
    was not made by POST /v1/audio/voices."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the WAV file in Hz."""
        return SAMPLE_RATE

    @property
    def review(self) -> str:
        """Why the transcript needs review, and the route that confirms it."""
        language = self.confidence.language if self.confidence else None
        spoken = "" if language in {None, LANGUAGE} else f", whose language seems to be {language!r}"
        return (
            f"Whisper is not sure of the words in audio prompt {self.prompt_id!r}{spoken}; "
            f"PUT /audio_prompts/{self.prompt_id}/transcript confirms or corrects its transcript"
        )

    @classmethod
    def of(cls, row: AudioPrompt) -> Self:
        return cls(
            prompt_id=row.prompt_id,
            digest=row.digest,
            duration=row.duration,
            file_size=row.file_size,
            transcript=row.transcript,
            transcript_source=row.transcript_source,
            sidecar_digest=row.sidecar_digest,
            confidence=_confidence(row),
            needs_review=row.needs_review,
            created_at=row.created_at,
            consent=row.consent,
        )

    def row(self) -> AudioPrompt:
        fields = asdict(self)
        confidence = fields.pop("confidence") or dict.fromkeys(Confidence.__slots__)
        return AudioPrompt(**fields, **confidence)


def _confidence(row: AudioPrompt) -> Confidence | None:
    if row.average_log_probability is None or row.no_speech_probability is None:
        return None
    return Confidence(
        language=row.language,
        language_probability=row.language_probability,
        average_log_probability=row.average_log_probability,
        no_speech_probability=row.no_speech_probability,
    )
