"""Anchors, partners and display names of voices; how far transcripts can be trusted."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

PARTNERS = {"aria": "atlas", "atlas": "aria", "luna": "kai", "kai": "luna", "zara": "nova", "nova": "zara"}


def upgrade() -> None:
    op.add_column("voice_mappings", sa.Column("display_name", sa.String(length=128), nullable=True))
    op.add_column("voice_mappings", sa.Column("partner", sa.String(length=64), nullable=True))
    voices = sa.table("voice_mappings", sa.column("voice_id", sa.String()), sa.column("partner", sa.String()))
    for voice_id, partner in PARTNERS.items():
        op.execute(sa.update(voices).where(voices.c.voice_id == voice_id).values(partner=partner))
    op.create_table(
        "voice_anchors",
        sa.Column("voice_id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("transcript", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("duration", sa.Double(), nullable=False),
        sa.Column("faults", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("pitch", sa.Double(), nullable=True),
        sa.Column("word_errors", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("voice_id"),
    )
    op.add_column("audio_prompts", sa.Column("language", sa.String(length=16), nullable=True))
    op.add_column("audio_prompts", sa.Column("language_probability", sa.Double(), nullable=True))
    op.add_column("audio_prompts", sa.Column("average_log_probability", sa.Double(), nullable=True))
    op.add_column("audio_prompts", sa.Column("no_speech_probability", sa.Double(), nullable=True))
    op.add_column(
        "audio_prompts",
        sa.Column("needs_review", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("audio_prompts", sa.Column("consent", sa.Text(), nullable=True))


def downgrade() -> None:
    for column in (
        "consent",
        "needs_review",
        "no_speech_probability",
        "average_log_probability",
        "language_probability",
        "language",
    ):
        op.drop_column("audio_prompts", column)
    op.drop_table("voice_anchors")
    op.drop_column("voice_mappings", "partner")
    op.drop_column("voice_mappings", "display_name")
