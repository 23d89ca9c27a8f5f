"""Outages of PostgreSQL: StorageUnavailable while they last, and no restart of the server afterwards."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select, text

from dia_server.db.engine import Database
from dia_server.db.models import Totals
from dia_server.errors import StorageUnavailable
from tests.postgres import ON_POSTGRES, Postgres
from tests.waiting import until

pytestmark = ON_POSTGRES

OUTAGES = {
    "connection lost": ["SELECT pg_terminate_backend(pg_backend_pid())"],
    "standby": ["SET TRANSACTION READ ONLY", "UPDATE totals SET failed = 9"],
    "statement timeout": ["SET LOCAL statement_timeout = 1", "SELECT pg_sleep(5)"],
}
"""Statements of a transaction, of which the last fails as in an outage."""


async def write(database: Database) -> None:
    async with database.sessions.begin() as session:
        await session.execute(text("UPDATE totals SET failed = failed + 1"))


async def execute(database: Database, statements: list[str]) -> None:
    async with database.sessions.begin() as session:
        for statement in statements:
            await session.execute(text(statement))


async def written(database: Database) -> int | None:
    async with database.reads() as session:
        return await session.scalar(select(Totals.failed))


async def test_connections_lost_while_idle_are_replaced(database: Database, postgres: Postgres) -> None:
    await write(database)
    assert await written(database) == 1

    postgres.disconnect()

    await write(database)
    assert await written(database) == 2


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_raises_storage_unavailable(database: Database, outage: str) -> None:
    with pytest.raises(StorageUnavailable, match="The database cannot be used at the moment: ") as failure:
        await execute(database, OUTAGES[outage])
    assert failure.value.retry_after

    await write(database)
    assert await written(database) == 1


async def test_a_transaction_that_was_idle_too_long_raises_storage_unavailable(database: Database) -> None:
    """psycopg raises none of its OperationalErrors, unless it sees the closed connection first."""
    running = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")

    async with database.sessions() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))

        async def has_ended() -> bool:
            async with database.reads() as other:
                return bool(await other.scalar(running, {"pid": pid}) == 0)

        await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 1"))
        await until(has_ended)
        with pytest.raises(StorageUnavailable, match="The database cannot be used"):
            await session.execute(text("SELECT 1"))

    await write(database)


async def test_a_cancelled_statement_is_no_outage(database: Database) -> None:
    running = text(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'"
    )
    task = asyncio.create_task(execute(database, ["SELECT pg_sleep(60)"]))

    async def is_running() -> bool:
        async with database.reads() as session:
            return bool(await session.scalar(running))

    await until(is_running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await write(database)


async def test_a_server_that_is_away_raises_storage_unavailable(database_url: str, tmp_path: Path) -> None:
    database = Database(f"{database_url.partition('?')[0]}?host={tmp_path}")
    for use in (write(database), written(database)):
        with pytest.raises(StorageUnavailable, match="No such file or directory") as failure:
            await use
        assert failure.value.retry_after
        assert "\n" not in str(failure.value)
    await database.close()
