"""Rate limits that two servers on one PostgreSQL share, and that go on while it is away."""

import asyncio
import socket

import pytest
from sqlalchemy import make_url, select
from structlog.testing import capture_logs

from dia_server.db.engine import Database
from dia_server.db.models import RateCount
from dia_server.services.server import SharedCounts
from tests.postgres import ON_POSTGRES, Postgres

pytestmark = ON_POSTGRES

ADDRESS = "203.0.113.9"
NOON = 1_795_953_600
"""Unix time of the beginning of a minute."""
FOREVER_S = 60.0


@pytest.fixture
def database_url(database_url: str, postgres: Postgres) -> str:
    """Database whose clock stands at 30 s after NOON."""
    postgres.set_clock(database_url, NOON + 30)
    return database_url


@pytest.fixture
def counts(database: Database) -> SharedCounts:
    return counting(database, NOON + 30)


@pytest.fixture
def other_counts(other_database: Database) -> SharedCounts:
    """Counts of a second server, whose clock is 1000 s fast."""
    return counting(other_database, NOON + 1030)


def counting(database: Database, clock: float, timeout_s: float = FOREVER_S) -> SharedCounts:
    return SharedCounts(database, clock=lambda: clock, timeout_s=timeout_s, retry_s=FOREVER_S)


async def add(counts: SharedCounts, limit: int = 100) -> int:
    return (await counts.add("generate", ADDRESS, limit)).value


async def stored(database: Database) -> list[tuple[str, int, int]]:
    async with database.reads() as session:
        rows = await session.execute(
            select(RateCount.key, RateCount.minute, RateCount.count).order_by(RateCount.minute)
        )
        return [(key, minute, count) for key, minute, count in rows]


async def test_servers_share_their_counts(counts: SharedCounts, other_counts: SharedCounts) -> None:
    assert [await add(each) for each in (counts, other_counts, other_counts, counts)] == [1, 2, 3, 4]
    assert (await counts.add("upload", ADDRESS, 100)).value == 1
    assert (await other_counts.add("generate", "203.0.113.10", 100)).value == 1


async def test_requests_at_the_same_time_are_counted_once_each(
    counts: SharedCounts, other_counts: SharedCounts
) -> None:
    values = await asyncio.gather(*(add(each) for each in (counts, other_counts) for _ in range(20)))

    assert sorted(values) == list(range(1, 41))


async def test_a_minute_ends_at_the_same_time_on_all_servers(
    database_url: str, postgres: Postgres, counts: SharedCounts, other_counts: SharedCounts
) -> None:
    both = [await each.add("generate", ADDRESS, 100) for each in (counts, other_counts)]
    assert [(count.reset, count.wait_s) for count in both] == [(NOON + 60, 30)] * 2

    postgres.set_clock(database_url, NOON + 60)

    both = [await each.add("generate", ADDRESS, 100) for each in (counts, other_counts)]
    assert [(count.value, count.reset, count.wait_s) for count in both] == [
        (1, NOON + 120, 60),
        (2, NOON + 120, 60),
    ]


async def test_only_the_limit_and_the_address_are_stored(database: Database, counts: SharedCounts) -> None:
    await counts.add("generate", ADDRESS, 100)
    await counts.add("generate", "x" * 10_000, 100)

    assert sorted(await stored(database)) == [
        (f"generate {ADDRESS}", NOON // 60, 1),
        (f"generate {'x' * 64}", NOON // 60, 1),
    ]


async def test_a_client_above_its_limit_costs_no_statement(database: Database, counts: SharedCounts) -> None:
    values = [await add(counts, limit=2) for _ in range(10)]

    assert values == list(range(1, 11))
    assert await stored(database) == [(f"generate {ADDRESS}", NOON // 60, 2)]


async def test_counts_of_past_minutes_are_deleted(database: Database, counts: SharedCounts) -> None:
    past, future = RateCount(key="a", minute=1, count=1), RateCount(key="a", minute=10**9, count=1)
    async with database.sessions.begin() as session:
        session.add_all([past, future])

    await counts.forget_past()

    assert await stored(database) == [("a", 10**9, 1)]


async def test_a_lost_connection_costs_no_count(
    database: Database, counts: SharedCounts, postgres: Postgres
) -> None:
    assert await add(counts) == 1

    postgres.disconnect()

    assert [await add(counts), await add(counts)] == [2, 3]
    assert await stored(database) == [(f"generate {ADDRESS}", NOON // 60, 3)]


async def test_while_the_database_is_away_a_server_counts_alone(database_url: str) -> None:
    database = Database(f"{database_url.partition('?')[0]}?host=/nowhere", log_outages=False)
    counts = counting(database, NOON + 30)

    with capture_logs() as lines:
        assert [await add(counts) for _ in range(5)] == [1, 2, 3, 4, 5]

    (line,) = lines  # the database was asked once
    assert line["event"] == "rate limits count this server alone"
    await database.close()


async def test_a_database_that_does_not_answer_is_not_waited_for(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        database = Database(f"{database_url.partition('?')[0]}?host=127.0.0.1&port={port}")
        counts = counting(database, NOON + 30, timeout_s=0.05)

        assert [await add(counts) for _ in range(3)] == [1, 2, 3]

        await database.close()


async def test_after_an_outage_requests_that_were_counted_alone_still_count(
    database: Database, database_url: str, postgres: Postgres
) -> None:
    counts = SharedCounts(database, clock=lambda: NOON + 30, timeout_s=FOREVER_S, retry_s=0)
    name = make_url(database_url).database
    assert await add(counts) == 1

    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    postgres.disconnect()
    assert [await add(counts) for _ in range(2)] == [2, 3]
    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    assert await add(counts) == 4
    assert await stored(database) == [(f"generate {ADDRESS}", NOON // 60, 2)]
