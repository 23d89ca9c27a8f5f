"""Table of pronunciations, which every server keeps in memory."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "pronunciations",
        sa.Column("voice_id", sa.String(length=64), nullable=False),
        sa.Column("word", sa.String(length=64), nullable=False),
        sa.Column("respelling", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("voice_id", "word"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER dia_table_changed AFTER INSERT OR UPDATE OR DELETE ON pronunciations "
            "FOR EACH STATEMENT EXECUTE FUNCTION dia_table_changed()"
        )


def downgrade() -> None:
    op.drop_table("pronunciations")
