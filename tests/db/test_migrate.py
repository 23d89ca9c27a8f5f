import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError

from dia_server.db.engine import Database
from dia_server.db.migrate import script_location
from dia_server.db.models import Base, UtcDateTime, VoiceMapping, now
from tests.postgres import BOTH_DATABASES, ON_POSTGRES


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """A database without tables; the folder of a SQLite file is missing too."""
    database = Database(database_url.replace(str(tmp_path), f"{tmp_path}/new folder"))
    yield database
    await database.close()


@BOTH_DATABASES
async def test_upgrading_creates_the_schema_and_is_idempotent(database: Database) -> None:
    head = ScriptDirectory(str(script_location())).get_current_head()

    assert await database.upgrade() == head
    assert await database.upgrade() == head


@BOTH_DATABASES
async def test_models_and_migrations_agree(database: Database) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, Base.metadata))

    await database.upgrade()
    async with database.sessions() as session:
        assert await (await session.connection()).run_sync(differences) == []


@BOTH_DATABASES
async def test_the_built_in_voices_are_there(database: Database) -> None:
    await database.upgrade()
    async with database.sessions() as session:
        voices = (await session.scalars(select(VoiceMapping))).all()

    assert {voice.voice_id: (voice.style, voice.primary_speaker) for voice in voices} == {
        "aria": ("neutral", "S1"),
        "atlas": ("calm", "S1"),
        "luna": ("expressive", "S2"),
        "kai": ("friendly", "S1"),
        "zara": ("deep", "S2"),
        "nova": ("bright", "S1"),
    }


@BOTH_DATABASES
async def test_datetimes_keep_their_time_zone(database: Database) -> None:
    await database.upgrade()
    before = now()
    async with database.sessions.begin() as session:
        session.add(VoiceMapping(voice_id="new", style="neutral", primary_speaker="S1"))
    async with database.sessions() as session:
        voice = await session.get_one(VoiceMapping, "new")

    assert before <= voice.created_at <= now()


def test_datetimes_in_other_time_zones_are_returned_in_utc() -> None:
    """PostgreSQL's driver returns the session's time zone."""
    noon = datetime(2026, 11, 24, 14, tzinfo=timezone(timedelta(hours=2)))

    found = UtcDateTime().process_result_value(noon, sqlite.dialect())

    assert found is not None
    assert (found, found.utcoffset()) == (noon, timedelta(0))


async def test_pragmas_are_set_on_connections(database: Database) -> None:
    await database.upgrade()
    async with database.sessions() as session:
        found = [await session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys")]

    assert found == ["wal", 1]


@BOTH_DATABASES
async def test_a_failed_migration_is_rolled_back(database: Database) -> None:
    def fail_half_way(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE half (a INTEGER)"))
        connection.execute(text("CREATE TABLE half (a INTEGER)"))

    with pytest.raises(DBAPIError):
        async with database.sessions.begin() as session:
            await (await session.connection()).run_sync(fail_half_way)

    async with database.sessions() as session:
        tables = await (await session.connection()).run_sync(lambda c: inspect(c).get_table_names())
    assert "half" not in tables


@ON_POSTGRES
async def test_servers_that_start_together_upgrade_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]

    revisions = await asyncio.gather(*(database.upgrade() for database in databases))

    assert len(set(revisions)) == 1
    for database in databases:
        await database.close()
