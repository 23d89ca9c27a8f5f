import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from litestar.testing import AsyncTestClient
from sqlalchemy import Connection, create_engine, select, text

from dia_server.app import create_app
from dia_server.audio import prompt
from dia_server.db.engine import Database
from dia_server.db.models import AudioPrompt, Base
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.settings import Settings
from tests.db.revisions import upgrade_to
from tests.job_client import wait_until_finished
from tests.recordings import wav_file

LEFT = Path(__file__).with_name("revision_0003.sql")
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def left(settings: Settings) -> Path:
    """Copy the database of an earlier version into the data folder."""
    file = Path(settings.data_dir) / "dia.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(LEFT.read_text())
    return file


def rows(file: Path) -> Rows:
    """Return the rows of every table except alembic's."""
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1")]
            for (name,) in tables
            if name != "alembic_version"
        }


async def test_every_row_of_an_earlier_version_is_kept(left: Path) -> None:
    before = rows(left)
    assert {table: len(found) for table, found in before.items()} == {
        "voice_mappings": 7,
        "audio_prompts": 1,
        "jobs": 3,
        "config": 1,
        "totals": 1,
    }

    database = Database(f"sqlite+aiosqlite:///{left}")
    await database.upgrade()
    await database.close()

    after = rows(left)
    for table, old in before.items():
        assert [{**new, **row} for new, row in zip(after[table], old, strict=True)] == after[table]


async def test_the_next_server_resumes_the_jobs_of_a_killed_one(settings: Settings, left: Path) -> None:
    completed, processing, pending = (row["job_id"] for row in rows(left)["jobs"])
    settings.audio_prompts.mkdir()
    (settings.audio_prompts / "anna.wav").write_bytes(prompt.make(io.BytesIO(wav_file(1.0))))
    settings.audio_outputs.mkdir()
    (settings.audio_outputs / f"{completed}.mp3").write_bytes(b"done long ago")

    async with AsyncTestClient(create_app(settings), raise_server_exceptions=False) as client:
        for job_id in (processing, pending):
            assert (await wait_until_finished(client, job_id))["status"] == "completed"
            assert (await client.get(f"/jobs/{job_id}/result")).content[:4] == b"RIFF"
        assert (await client.get(f"/jobs/{completed}/result")).content == b"done long ago"
        assert (await client.get("/stats")).json()["requests"]["total"] == 3

        mapping = (await client.get("/voice_mappings")).json()["anna"]
        assert (mapping["style"], mapping["audio_prompt"]) == ("warm", "anna")
        known = (await client.get("/audio_prompts/metadata/anna")).json()
        assert (known["transcript"], known["transcript_source"]) == ("This is Anna.", "manual")
        assert (await client.get("/config")).json()["output_retention_hours"] == 0

    assert not [row for row in rows(left)["jobs"] if row["status"] != "completed"]


async def test_a_transcript_by_whisper_of_an_earlier_version_counts_as_confirmed(left: Path) -> None:
    with closing(sqlite3.connect(left)) as connection, connection:
        connection.execute("UPDATE audio_prompts SET transcript_source = 'whisper_auto'")

    database = Database(f"sqlite+aiosqlite:///{left}")
    await database.upgrade()
    async with database.sessions() as session:
        (prompt,) = [Prompt.of(row) for row in await session.scalars(select(AudioPrompt))]
    await database.close()

    assert (prompt.transcript, prompt.transcript_source) == ("This is Anna.", "whisper_auto")
    assert (prompt.needs_review, prompt.confidence) == (False, None)


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
        assert [row[: len(before[0])] for row in mappings(connection)] == before
        assert connection.execute(text("SELECT successful, failed FROM totals")).all() == [(0, 0)]
    engine.dispose()


async def test_jobs_of_an_older_database_are_kept_with_zero_retries(tmp_path: Path) -> None:
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


async def test_the_revisions_create_the_tables_of_the_models(tmp_path: Path) -> None:
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
