import sqlite3
from contextlib import closing
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from dia_server.db.engine import Database
from dia_server.db.models import AudioPrompt, Base
from tests.db.revisions import upgrade_to


async def test_voices_of_an_older_database_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "old.sqlite3"
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        upgrade_to(connection, "0001")
        connection.exec_driver_sql("UPDATE voice_mappings SET audio_prompt = 'mine' WHERE voice_id = 'luna'")
    engine.dispose()

    database = Database(f"sqlite+aiosqlite:///{file}")
    assert await database.upgrade() >= "0002"
    await database.close()

    with closing(sqlite3.connect(file)) as raw:
        mapped = raw.execute("SELECT voice_id FROM voice_mappings WHERE audio_prompt = 'mine'").fetchall()
        prompts = raw.execute("SELECT count(*) FROM audio_prompts").fetchone()
    assert (mapped, prompts) == ([("luna",)], (0,))


def test_the_revisions_create_the_table_of_the_model(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'new.sqlite3'}")
    with engine.begin() as connection:
        upgrade_to(connection, "head")
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    engine.dispose()

    table = AudioPrompt.__tablename__
    assert not [difference for difference in differences if table in str(difference)]
