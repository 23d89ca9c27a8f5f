"""The tables."""

from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import DateTime, Dialect, Double, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment; SQLite keeps no time zone, so it goes in and comes out as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    type_annotation_map = {datetime: UtcDateTime}


class VoiceMapping(Base):
    """What a voice id stands for."""

    __tablename__ = "voice_mappings"

    voice_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    style: Mapped[str] = mapped_column(String(64))
    primary_speaker: Mapped[Literal["S1", "S2"]] = mapped_column(String(2))
    audio_prompt: Mapped[str | None] = mapped_column(String(64))
    audio_prompt_transcript: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class AudioPrompt(Base):
    """A recording in the folder of audio prompts, as it was when it was last read."""

    __tablename__ = "audio_prompts"

    prompt_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the file."""
    duration: Mapped[float] = mapped_column(Double)
    file_size: Mapped[int]
    transcript: Mapped[str | None] = mapped_column(Text)
    transcript_source: Mapped[Literal["reference", "txt", "manual", "whisper_auto"] | None] = mapped_column(
        String(16)
    )
    sidecar_digest: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the transcript file that counted, so that one which somebody changes is noticed."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
