"""Table of the servers on the database, owners of jobs and candidates, and PostgreSQL's notifications.

Each change that other servers must know of is announced on the channel `dia` when it is committed: the name
of a table that they keep in memory, `jobs pending` for a job that can be claimed, or `jobs cancelled <id>`.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

IN_MEMORY = ("voice_mappings", "voice_anchors", "audio_prompts", "config")
"""Tables that every server keeps in memory."""
ON_TABLE = """
CREATE FUNCTION dia_table_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('dia', TG_TABLE_NAME);
    RETURN NULL;
END $$
"""
ON_JOB = """
CREATE FUNCTION dia_job_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'pending' THEN
        PERFORM pg_notify('dia', 'jobs pending');
    ELSE
        PERFORM pg_notify('dia', 'jobs cancelled ' || NEW.job_id);
    END IF;
    RETURN NULL;
END $$
"""
JOB_TRIGGERS = (
    "CREATE TRIGGER dia_job_added AFTER INSERT ON jobs FOR EACH ROW "
    "WHEN (NEW.status = 'pending') EXECUTE FUNCTION dia_job_changed()",
    "CREATE TRIGGER dia_job_changed AFTER UPDATE OF status ON jobs FOR EACH ROW "
    "WHEN (NEW.status IN ('pending', 'cancelled') AND OLD.status <> NEW.status) "
    "EXECUTE FUNCTION dia_job_changed()",
)


def upgrade() -> None:
    op.create_table(
        "servers",
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("application", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("server_id"),
    )
    for table in ("jobs", "voice_candidates"):
        op.add_column(table, sa.Column("owner", sa.String(length=36), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(ON_TABLE)
        for table in IN_MEMORY:
            op.execute(
                f"CREATE TRIGGER dia_table_changed AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION dia_table_changed()"
            )
        op.execute(ON_JOB)
        for statement in JOB_TRIGGERS:
            op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION dia_table_changed() CASCADE")
        op.execute("DROP FUNCTION dia_job_changed() CASCADE")
    for table in ("jobs", "voice_candidates"):
        op.drop_column(table, "owner")
    op.drop_table("servers")
