"""Databases of earlier versions."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from dia_server.db.migrate import script_location


def upgrade_to(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(script_location()))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
