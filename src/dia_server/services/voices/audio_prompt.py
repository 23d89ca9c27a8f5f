"""Metadata of an audio prompt, as stored in the database."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, Self

from dia_server.db.models import AudioPrompt
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
    created_at: datetime
    consent: str | None = None
    """Statement of the speaker's consent, as the client sent it; "" if it sent none. None if the recording
    was not made by POST /v1/audio/voices."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the WAV file in Hz."""
        return SAMPLE_RATE

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
            created_at=row.created_at,
            consent=row.consent,
        )

    def row(self) -> AudioPrompt:
        return AudioPrompt(**asdict(self))
