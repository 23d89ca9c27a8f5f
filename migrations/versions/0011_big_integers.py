"""Integers of 64 bits on PostgreSQL, for numbers and counts that only grow; SQLite has them already."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

NUMBERED = ("jobs", "voice_candidates")
"""Tables whose primary key `number` is a sequence."""
OTHERS = (("audio_prompts", "file_size"), ("totals", "successful"), ("totals", "failed"))


def upgrade() -> None:
    change("bigint", sa.Integer(), sa.BigInteger())


def downgrade() -> None:
    change("integer", sa.BigInteger(), sa.Integer())


def change(name: str, before: sa.types.TypeEngine[int], after: sa.types.TypeEngine[int]) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in NUMBERED:
        op.alter_column(table, "number", existing_type=before, type_=after)
        op.execute(f"ALTER SEQUENCE {table}_number_seq AS {name}")
    for table, column in OTHERS:
        op.alter_column(table, column, existing_type=before, type_=after)
