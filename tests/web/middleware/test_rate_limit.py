import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from sqlalchemy import select

from dia_server.app import create_app
from dia_server.db.engine import Database
from dia_server.db.models import RateCount
from dia_server.settings import Settings
from dia_server.timing import Timing
from dia_server.web.middleware.client_address import ClientAddress
from tests.job_client import loaded
from tests.postgres import ON_POSTGRES, Postgres
from tests.waiting import early_in_a_minute, until


def scope(client: str | None, *forwarded: str) -> object:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    return {"type": "http", "client": client and (client, 1), "headers": headers}


async def test_a_request_above_the_limit_is_refused_with_retry_after(settings: Settings) -> None:
    app = create_app(msgspec.structs.replace(settings, rate_limit_generate=2))
    async with AsyncTestClient(app) as client:
        await until(lambda: loaded(client))
        early_in_a_minute()
        answers = [await client.post("/generate", json={"text": "Hi"}) for _ in range(3)]
        openai = await client.post("/v1/audio/speech", json={"input": "Hi"})
        voices = await client.get("/voices")

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"2"}
    assert 0 < int(answers[2].headers["x-ratelimit-reset"]) - time.time() <= 60
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert answers[2].json()["error_code"] == "RATE_LIMIT_EXCEEDED"
    assert (openai.status_code, openai.json()["error"]["type"]) == (429, "rate_limit_error")
    assert voices.status_code == 200
    assert "x-ratelimit-limit" not in voices.headers


@ON_POSTGRES
async def test_servers_on_one_postgresql_share_a_limit(
    settings: Settings, database_url: str, postgres: Postgres, tmp_path: Path
) -> None:
    postgres.set_clock(database_url, time.time())
    shared = msgspec.structs.replace(settings, database_url=database_url, rate_limit_upload=3)
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                AsyncTestClient(create_app(msgspec.structs.replace(shared, data_dir=str(tmp_path / name))))
            )
            for name in ("one", "two")
        ]
        answers = [await servers[turn % 2].post("/audio_prompts/upload") for turn in range(5)]

    remaining = [(answer.status_code, answer.headers["x-ratelimit-remaining"]) for answer in answers]
    assert remaining == [(415, "2"), (415, "1"), (415, "0"), (429, "0"), (429, "0")]
    assert len({answer.headers["x-ratelimit-reset"] for answer in answers}) == 1


@ON_POSTGRES
async def test_the_leader_deletes_past_counts(
    settings: Settings, database_url: str, database: Database
) -> None:
    on_postgres = msgspec.structs.replace(settings, database_url=database_url)
    async with database.sessions.begin() as session:
        session.add(RateCount(key="generate 203.0.113.9", minute=1, count=1))

    async def is_empty() -> bool:
        async with database.reads() as session:
            return await session.scalar(select(RateCount.minute)) is None

    async with AsyncTestClient(create_app(on_postgres, timing=Timing(heartbeat_s=0.01))):
        await until(is_empty)


async def test_invalid_requests_count_against_the_limit(settings: Settings) -> None:
    app = create_app(msgspec.structs.replace(settings, rate_limit_generate=1))
    async with AsyncTestClient(app) as client:
        early_in_a_minute()
        first = await client.post("/generate", json={})
        second = await client.post("/generate", json={})

    assert (first.status_code, second.status_code) == (422, 429)
    assert first.headers["x-ratelimit-remaining"] == "0"


async def test_zero_means_no_limit(client: AsyncTestClient[Litestar]) -> None:
    answers = [await client.post("/generate", json={}) for _ in range(50)]

    assert {answer.status_code for answer in answers} == {422}
    assert "x-ratelimit-limit" not in answers[0].headers


@pytest.mark.parametrize(
    ("client", "forwarded", "address"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),  # not a trusted proxy: any client can send this header
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # entries further left were sent by the client
        ("10.0.0.1", "1.2.3.4, 10.0.0.2", "1.2.3.4"),
        ("10.0.0.1", "nonsense", "nonsense"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6\n1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6\n1.2.3.4\n10.0.0.2, 10.0.0.3", "1.2.3.4"),
        ("10.0.0.1", "1.2.3.4:4711, 10.0.0.2:80", "1.2.3.4"),
        ("::1", "2001:db8::1", "2001:db8::/64"),
        ("10.0.0.1", "[2001:db8::1:2:3:4]:4711", "2001:db8::/64"),
        ("10.0.0.1", "[2001:db8:0:1::1]", "2001:db8:0:1::/64"),
        ("fe80::7%eth0", "", "fe80::/64"),
        ("::ffff:203.0.113.9", "", "203.0.113.9"),
        ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
        (None, "1.2.3.4", "unknown"),
    ],
)
def test_trusted_proxies_determine_the_client_address(
    client: str | None, forwarded: str, address: str
) -> None:
    asked = scope(client, *forwarded.splitlines())

    assert ClientAddress(["10.0.0.0/8", "::1"])(asked) == address  # type: ignore[arg-type]
