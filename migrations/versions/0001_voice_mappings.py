"""Table of voice mappings, with rows of the six built-in voices."""

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

BUILT_IN = [
    ("aria", "neutral", "S1"),
    ("atlas", "calm", "S1"),
    ("luna", "expressive", "S2"),
    ("kai", "friendly", "S1"),
    ("zara", "deep", "S2"),
    ("nova", "bright", "S1"),
]


def upgrade() -> None:
    table = op.create_table(
        "voice_mappings",
        sa.Column("voice_id", sa.String(length=64), nullable=False),
        sa.Column("style", sa.String(length=64), nullable=False),
        sa.Column("primary_speaker", sa.String(length=2), nullable=False),
        sa.Column("audio_prompt", sa.String(length=64), nullable=True),
        sa.Column("audio_prompt_transcript", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("voice_id"),
    )
    now = datetime.now(UTC)
    op.bulk_insert(
        table,
        [
            {
                "voice_id": voice_id,
                "style": style,
                "primary_speaker": speaker,
                "audio_prompt": None,
                "audio_prompt_transcript": None,
                "created_at": now,
                "updated_at": now,
            }
            for voice_id, style, speaker in BUILT_IN
        ],
    )


def downgrade() -> None:
    op.drop_table("voice_mappings")
