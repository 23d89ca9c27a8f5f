"""Schema upgrades with alembic, from a checkout or from an installed wheel."""

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
    """Every revision that this version knows, and the newest of them."""
    scripts = ScriptDirectory(str(script_location()))
    return {script.revision for script in scripts.walk_revisions()}, scripts.get_current_head()


def upgrade(connection: Connection) -> str:
    """Apply what is missing within the transaction of `connection`; returns the revision reached."""
    if connection.dialect.name == "postgresql":  # servers that start at the same time take turns
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('dia-server'))"))
    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    revision = MigrationContext.configure(connection).get_current_revision()
    assert revision is not None
    return revision
