"""Schema upgrades with alembic, from a checkout or an installed wheel."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

IN_WHEEL = Path(__file__).parents[1] / "migrations"
IN_CHECKOUT = Path(__file__).parents[3] / "migrations"


def script_location() -> Path:
    return IN_WHEEL if IN_WHEEL.exists() else IN_CHECKOUT


def revisions() -> tuple[set[str], str | None]:
    """Return the ids of all revisions that this version knows, and the id of the newest one."""
    scripts = ScriptDirectory(str(script_location()))
    return {script.revision for script in scripts.walk_revisions()}, scripts.get_current_head()


def upgrade(connection: Connection) -> str:
    """Apply missing revisions in the transaction of `connection`; return the resulting revision."""
    if connection.dialect.name == "postgresql":  # serialize servers that start concurrently
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('dia-server'))"))
    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    revision = MigrationContext.configure(connection).get_current_revision()
    assert revision is not None
    return revision
