"""The database tables."""

from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, DateTime, Dialect, Double, Index, Integer, String, Text, false, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A time zone aware datetime, stored and returned in UTC, because SQLite stores no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert isinstance(value, datetime)
        # PostgreSQL returns the session's time zone
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class NameList(TypeDecorator[tuple[str, ...]]):
    """A tuple of names, stored as comma-separated text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:
        return None if value is None else ",".join(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...] | None:
        return None if value is None else tuple(filter(None, value.split(",")))


Big = BigInteger().with_variant(Integer(), "sqlite")
"""An integer of 64 bits, which SQLite's INTEGER has, and only it generates primary keys."""


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    type_annotation_map = {datetime: UtcDateTime}


class VoiceMapping(Base):
    """Settings of a voice."""

    __tablename__ = "voice_mappings"

    voice_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    style: Mapped[str] = mapped_column(String(64))
    primary_speaker: Mapped[Literal["S1", "S2"]] = mapped_column(String(2))
    audio_prompt: Mapped[str | None] = mapped_column(String(64))
    audio_prompt_transcript: Mapped[str | None] = mapped_column(Text)
    display_name: Mapped[str | None] = mapped_column(String(128))
    partner: Mapped[str | None] = mapped_column(String(64))
    """Id of the voice that speaks for the other speaker of a text with two speakers."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class AudioPrompt(Base):
    """A recording in the folder of audio prompts, as last read or written by the server."""

    __tablename__ = "audio_prompts"

    prompt_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the WAV file."""
    duration: Mapped[float] = mapped_column(Double)
    file_size: Mapped[int] = mapped_column(Big)
    transcript: Mapped[str | None] = mapped_column(Text)
    transcript_source: Mapped[Literal["reference", "txt", "manual", "whisper_auto"] | None] = mapped_column(
        String(16)
    )
    sidecar_digest: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the source and text of the transcript file last read or written, to detect changes."""
    language: Mapped[str | None] = mapped_column(String(16))
    """Language that Whisper detected in the recording, as an ISO 639-1 code; None if it was not asked."""
    language_probability: Mapped[float | None] = mapped_column(Double)
    average_log_probability: Mapped[float | None] = mapped_column(Double)
    """Mean natural logarithm of the probabilities of the transcript's tokens, by Whisper."""
    no_speech_probability: Mapped[float | None] = mapped_column(Double)
    needs_review: Mapped[bool] = mapped_column(server_default=false())
    """Whether the transcript is not trusted until a person confirms it."""
    consent: Mapped[str | None] = mapped_column(Text)
    """Statement of the speaker's consent, as the client sent it; "" if it sent none. None if the recording
    was not made by POST /v1/audio/voices."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class VoiceAnchor(Base):
    """Speech that Dia generated once for a voice; it is the prompt of everything that the voice says."""

    __tablename__ = "voice_anchors"

    voice_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the anchor's file, which is named after it."""
    transcript: Mapped[str] = mapped_column(Text)
    """Text of the anchor without speaker tags."""
    seed: Mapped[int] = mapped_column(BigInteger)
    model: Mapped[str] = mapped_column(String(255))
    """Id and revision of the model that generated it."""
    duration: Mapped[float] = mapped_column(Double)
    """Duration of the audio in seconds."""
    faults: Mapped[tuple[str, ...]] = mapped_column(NameList, server_default=text("''"))
    """Names of the faults that the guard found."""
    pitch: Mapped[float | None] = mapped_column(Double)
    """Median fundamental frequency in Hz; None if it was not found."""
    word_errors: Mapped[float | None] = mapped_column(Double)
    """Word error rate by Whisper, 0 to 1; None if it was not asked."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Pronunciation(Base):
    """A word that is said in another spelling."""

    __tablename__ = "pronunciations"

    voice_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Voice that says it so; empty for all voices."""
    word: Mapped[str] = mapped_column(String(64), primary_key=True)
    respelling: Mapped[str] = mapped_column(String(64))


class Server(Base):
    """A running server on this PostgreSQL database, or one that has ended without a goodbye."""

    __tablename__ = "servers"

    server_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """UUID of the server; it takes another one if its peers have taken over its work."""
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    """Process id of the HTTP worker on `host`."""
    application: Mapped[str] = mapped_column(String(64))
    """Name by which PostgreSQL knows the server's connections."""
    started_at: Mapped[datetime] = mapped_column(default=now)
    lease_until: Mapped[datetime]
    """Time by PostgreSQL's clock after which the server counts as dead."""


CandidateStatus = Literal["pending", "completed", "failed"]


class VoiceCandidate(Base):
    """Speech that Dia generates so that a person can choose it as a voice's anchor."""

    __tablename__ = "voice_candidates"

    number: Mapped[int] = mapped_column(Big, primary_key=True)
    """Sequence number: candidates are made in the order in which they were asked for."""
    candidate_id: Mapped[str] = mapped_column(String(36), unique=True)
    voice_id: Mapped[str] = mapped_column(String(64), index=True)
    status: Mapped[CandidateStatus] = mapped_column(String(16))
    transcript: Mapped[str] = mapped_column(Text)
    """Text that is spoken, without speaker tags."""
    style: Mapped[str] = mapped_column(String(64))
    """Style by which the candidates are ranked."""
    seed: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str | None] = mapped_column(String(36))
    """Id of the server that makes a pending candidate."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Number of starts."""
    error: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(255))
    """Id and revision of the model that generated it."""
    duration: Mapped[float | None] = mapped_column(Double)
    """Duration of the audio in seconds."""
    faults: Mapped[tuple[str, ...]] = mapped_column(NameList, server_default=text("''"))
    """Names of the faults that the guard found."""
    pitch: Mapped[float | None] = mapped_column(Double)
    """Median fundamental frequency in Hz; None if it was not found."""
    word_errors: Mapped[float | None] = mapped_column(Double)
    """Word error rate by Whisper; None if it was not asked."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None] = mapped_column()


JobStatus = Literal["pending", "processing", "completed", "failed", "cancelled"]


class Job(Base):
    """A durable generation: its inputs, status and result."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_status_number", "status", "number"),)

    number: Mapped[int] = mapped_column(Big, primary_key=True)
    """Sequence number: jobs run in the order in which they were accepted."""
    job_id: Mapped[str] = mapped_column(String(36), unique=True)
    status: Mapped[JobStatus] = mapped_column(String(16))
    request: Mapped[str] = mapped_column(Text)
    """JSON of a `SpeechRequest` with its seed."""
    voice: Mapped[str] = mapped_column(Text)
    """JSON of the `CastSnapshot` taken when the job was accepted."""
    text_preview: Mapped[str] = mapped_column(String(100))
    owner: Mapped[str | None] = mapped_column(String(36))
    """Id of the server that last claimed the job or accepted it to run at once; None if it is pending."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Number of starts, less those that ended with a known crash or with `JobStore.requeue`. Above 1 if a
    server was killed during an earlier start."""
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    """Number of starts that ended with a crash of the server or of an engine process."""
    progress: Mapped[float] = mapped_column(default=0.0)
    """Share of the audio that is generated, 0 to 1; the worker has a newer value while the job runs."""
    error: Mapped[str | None] = mapped_column(Text)
    file: Mapped[str | None] = mapped_column(String(64))
    """Name of the result in the outputs folder."""
    audio_s: Mapped[float | None]
    generation_s: Mapped[float | None]
    tokens: Mapped[int | None]
    retries: Mapped[int] = mapped_column(server_default=text("0"))
    """Number of retries of faulty segments."""
    faults: Mapped[tuple[str, ...]] = mapped_column(NameList, server_default=text("''"))
    """Names of the faults that remain in the audio."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None] = mapped_column(index=True)
    timestamps: Mapped[str | None] = mapped_column(Text, deferred=True)
    """JSON of the result's timestamps, read only if asked for; NULL if the request asked for none."""


class ConfigValue(Base):
    """A configuration field that was changed at run time."""

    __tablename__ = "config"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
    """Value of the field as JSON."""


class RateCount(Base):
    """Requests of a client in a minute, for the rate limits of several servers; unused on SQLite."""

    __tablename__ = "rate_counts"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    """Name of the limit, and the client's address."""
    minute: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """Minutes since 1970, in UTC."""
    count: Mapped[int]


class Totals(Base):
    """One row with the sums over all finished requests; they remain when the jobs are deleted."""

    __tablename__ = "totals"

    id: Mapped[int] = mapped_column(primary_key=True)
    successful: Mapped[int] = mapped_column(Big, server_default=text("0"))
    failed: Mapped[int] = mapped_column(Big, server_default=text("0"))
    generation_s: Mapped[float] = mapped_column(server_default=text("0"))
    tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    audio_s: Mapped[float] = mapped_column(server_default=text("0"))
