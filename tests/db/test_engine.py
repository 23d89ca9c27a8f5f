import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from dia_server.db.engine import RESERVED_CONNECTIONS, Database
from dia_server.db.models import Totals
from dia_server.errors import StorageUnavailable
from tests.postgres import BOTH_DATABASES

CONNECTIONS = 15
"""Maximum connections of a pool."""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database that waits 0.2 s for a connection or for the write lock."""
    async with opened(database_url, pool_timeout_s=0.2) as database:
        yield database


@asynccontextmanager
async def opened(url: str, pool_timeout_s: float) -> AsyncIterator[Database]:
    database = Database(url, pool_timeout_s=pool_timeout_s, connections=CONNECTIONS + RESERVED_CONNECTIONS)
    await database.upgrade()
    yield database
    await database.close()


@pytest.fixture
def lock(database: Database, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program that holds the write lock."""
    with closing(sqlite3.connect(tmp_path / "dia.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def write(database: Database) -> None:
    async with database.sessions.begin() as session:
        await session.execute(text("UPDATE totals SET failed = failed + 1"))


@BOTH_DATABASES
async def test_an_exhausted_pool_raises_storage_unavailable(database: Database) -> None:
    async with AsyncExitStack() as held:
        for _ in range(CONNECTIONS):
            session = await held.enter_async_context(database.reads())
            await session.connection()

        async with database.reads() as session:
            with pytest.raises(StorageUnavailable, match="all connections to it are in use") as failure:
                await session.connection()
    assert failure.value.retry_after


async def test_reads_do_not_wait_for_queued_writers(database: Database, lock: sqlite3.Connection) -> None:
    writers = [asyncio.create_task(write(database)) for _ in range(CONNECTIONS + 5)]
    # no write can succeed: the first to finish is one that got no connection
    await asyncio.wait(writers, timeout=10, return_when=asyncio.FIRST_COMPLETED)

    async with asyncio.timeout(2), database.reads() as session:
        assert await session.scalar(select(Totals.failed)) == 0

    lock.execute("ROLLBACK")
    results = await asyncio.gather(*writers, return_exceptions=True)
    assert {type(result) for result in results} == {type(None), StorageUnavailable}
    async with database.reads() as session:
        assert await session.scalar(select(Totals.failed)) == results.count(None)


async def test_writes_run_one_at_a_time_in_order(database_url: str) -> None:
    begun: list[int] = []

    async def writer(database: Database, number: int) -> None:
        async with database.sessions.begin() as session:
            begun.append(number)
            await session.execute(text("UPDATE totals SET failed = failed + 1"))
            await session.execute(text("UPDATE totals SET successful = failed"))
            assert begun[-1] == number

    async with opened(database_url, pool_timeout_s=30.0) as database:
        await asyncio.gather(*(writer(database, number) for number in range(5 * CONNECTIONS)))

    assert begun == list(range(5 * CONNECTIONS))


async def test_a_cancelled_writer_does_not_delay_the_next(database: Database) -> None:
    async with database.sessions.begin():
        leaving, staying = [asyncio.create_task(write(database)) for _ in range(2)]
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    await staying

    async with database.reads() as session:
        assert await session.scalar(select(Totals.failed)) == 1


async def test_a_writer_that_times_out_gets_retry_after(database: Database) -> None:
    async with database.sessions.begin():
        with pytest.raises(StorageUnavailable, match="other writes take too long") as failure:
            await write(database)

    assert failure.value.retry_after
    await write(database)


@BOTH_DATABASES
async def test_errors_do_not_contain_statement_parameters(database: Database) -> None:
    with pytest.raises(DBAPIError, match="nowhere") as failure:
        async with database.sessions.begin() as session:
            await session.execute(text("INSERT INTO nowhere VALUES (:text)"), {"text": "marmalade"})

    assert "marmalade" not in str(failure.value)
