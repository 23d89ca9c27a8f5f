"""Outages of PostgreSQL: StorageUnavailable while they last, and no restart of the server afterwards."""

import asyncio
import re
import socket
from pathlib import Path

import pytest
from sqlalchemy import make_url, select, text
from structlog.testing import capture_logs

from dia_server.db import engine
from dia_server.db.engine import RESERVED_CONNECTIONS, Database
from dia_server.db.models import AudioPrompt, Job, Totals, VoiceCandidate
from dia_server.db.postgres import SESSION, connect_args
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
    for use in (write(database), written(database), database.require_writable()):
        with pytest.raises(StorageUnavailable, match="PostgreSQL cannot be reached") as failure:
            await use
        assert failure.value.retry_after
    await database.close()


@pytest.mark.parametrize(
    "where",
    ["dia@127.0.0.1:1/words", "dia@nowhere.invalid/words", "nobody@/words?host={0}", "dia@/words?host={0}"],
)
async def test_messages_do_not_name_host_port_user_or_database(database_url: str, where: str) -> None:
    database = Database(f"postgresql+psycopg://{where.format(database_url.rpartition('=')[2])}")

    with capture_logs() as logs, pytest.raises(StorageUnavailable) as failure:
        await write(database)

    assert not re.search(r"127|:1|nowhere|dia|nobody|words|tmp", str(failure.value))
    (line,) = logs
    assert re.search(r"127|nowhere|words|nobody", line["cause"])
    await database.close()


async def test_a_lock_that_is_held_too_long_raises_storage_unavailable(database: Database) -> None:
    async with database.sessions.begin() as session:
        await session.execute(text("LOCK TABLE totals"))
        with pytest.raises(StorageUnavailable, match="another transaction has held a lock"):
            await execute(database, ["SET LOCAL lock_timeout = 1", "UPDATE totals SET failed = 9"])


async def test_sessions_have_timeouts(database: Database) -> None:
    async with database.sessions() as session:
        found = {name: await session.scalar(text(f"SHOW {name}")) for name in SESSION}

    # sockets that are files have no TCP parameters
    assert {name: value for name, value in found.items() if not name.startswith("tcp_")} == {
        "lock_timeout": "5s",
        "statement_timeout": "1min",
        "idle_in_transaction_session_timeout": "2min",
    }


async def test_numbers_and_counts_may_exceed_32_bits(database: Database) -> None:
    above = 2**31
    job = Job(job_id="a", status="pending", request="{}", voice="{}", text_preview="")
    candidate = VoiceCandidate(
        candidate_id="a", voice_id="aria", status="pending", transcript="", style="neutral", seed=1
    )
    prompt = AudioPrompt(prompt_id="a", digest="", duration=1.0, file_size=above)
    for table in "jobs", "voice_candidates":
        await execute(database, [f"SELECT setval('{table}_number_seq', {above - 1})"])
    await execute(database, [f"UPDATE totals SET successful = {above}, failed = {above}"])

    async with database.sessions.begin() as session:
        session.add_all([job, candidate, prompt])

    assert (job.number, candidate.number, await written(database)) == (above, above, above)


async def test_an_upgrade_waits_for_another_without_limit(database_url: str) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    database = Database(f"{database_url}&options=-c%20lock_timeout%3D1")
    holder = Database(database_url)

    async def is_waiting() -> bool:
        async with holder.reads() as other:
            return bool(await other.scalar(waiting))

    async with holder.sessions.begin() as session:
        await session.execute(text("SELECT pg_advisory_xact_lock(hashtext('dia-server'))"))
        upgrade = asyncio.create_task(database.upgrade())
        await until(is_waiting)
        await session.execute(text("SELECT pg_sleep(0.05)"))
        assert await is_waiting()

    assert await upgrade
    await database.close()
    await holder.close()


def test_the_url_wins_over_our_parameters(database_url: str) -> None:
    url = make_url(f"{database_url}&tcp_user_timeout=1&options=-c%20work_mem%3D1MB")

    assert not {"tcp_user_timeout", "options"} & connect_args(url, "dia").keys()
    assert connect_args(url, "dia")["keepalives_idle"] == 5


async def test_a_database_that_can_be_written_is_ready(database: Database, postgres: Postgres) -> None:
    await database.require_writable()

    postgres.disconnect()

    await database.require_writable()


async def test_a_standby_is_not_ready(database: Database, postgres: Postgres) -> None:
    await execute(
        database,
        [
            """DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database()
                || ' SET default_transaction_read_only = on'; END $$"""
        ],
    )
    postgres.disconnect()

    with pytest.raises(StorageUnavailable, match="PostgreSQL only reads") as failure:
        await database.require_writable()
    assert failure.value.retry_after


async def test_a_server_that_does_not_answer_is_not_ready(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PROBE_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        database = Database(f"{database_url.partition('?')[0]}?host=127.0.0.1&port={port}")

        with pytest.raises(StorageUnavailable, match="PostgreSQL does not answer") as failure:
            await database.require_writable()
        assert failure.value.retry_after

        await database.close()


async def test_a_readiness_probe_does_not_wait_for_transactions(database_url: str) -> None:
    database = Database(database_url, connections=RESERVED_CONNECTIONS + 1)

    async with database.sessions.begin() as session:
        await session.connection()
        await database.require_writable()

    await database.close()
