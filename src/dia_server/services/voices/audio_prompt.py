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
    """Seconds."""
    file_size: int
    """Bytes."""
    transcript: str | None
    transcript_source: Source | None
    sidecar_digest: str | None
    """Digest of the transcript file in effect at the last scan."""
    created_at: datetime

    @property
    def sample_rate(self) -> int:
        """Hz."""
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
        )

    def row(self) -> AudioPrompt:
        return AudioPrompt(**asdict(self))
