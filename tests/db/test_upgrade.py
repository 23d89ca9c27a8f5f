from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

from dia_server.db.engine import Database
from dia_server.db.models import Base
from tests.db.test_revision_0002 import upgrade_to


async def test_a_database_of_the_first_revision_keeps_its_data(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/dia.sqlite3")
    with engine.begin() as connection:
        upgrade_to(connection, "0001")
        connection.execute(
            text(
                "INSERT INTO voice_mappings VALUES"
                " ('mine', 'gloomy', 'S2', 'prompt', 'Hello.', '2025-06-02 10:30:00', '2025-06-02 10:30:00')"
            )
        )
        before = mappings(connection)
    assert len(before) == 7

    database = Database(f"sqlite+aiosqlite:///{tmp_path}/dia.sqlite3")
    await database.upgrade()
    await database.close()

    with engine.begin() as connection:
        assert mappings(connection) == before
        assert connection.execute(text("SELECT successful, failed FROM totals")).all() == [(0, 0)]
    engine.dispose()


async def test_jobs_of_an_older_database_are_kept_and_were_not_made_again(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/dia.sqlite3")
    with engine.begin() as connection:
        upgrade_to(connection, "0003")
        connection.execute(
            text(
                "INSERT INTO jobs"
                " (job_id, status, request, voice, text_preview, attempts, progress, created_at)"
                " VALUES ('old', 'completed', '{}', '{}', 'Hello.', 1, 1.0, '2025-06-02 10:30:00')"
            )
        )

    database = Database(f"sqlite+aiosqlite:///{tmp_path}/dia.sqlite3")
    await database.upgrade()
    await database.close()

    with engine.begin() as connection:
        jobs = connection.execute(text("SELECT job_id, status, text_preview, retries FROM jobs")).all()
    engine.dispose()
    assert jobs == [("old", "completed", "Hello.", 0)]


async def test_the_revisions_make_the_tables_of_the_models(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/dia.sqlite3")
    await database.upgrade()
    await database.close()

    engine = create_engine(f"sqlite:///{tmp_path}/dia.sqlite3")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def mappings(connection: Connection) -> list[tuple[object, ...]]:
    rows = connection.execute(text("SELECT * FROM voice_mappings ORDER BY voice_id"))
    return [tuple(row) for row in rows]
