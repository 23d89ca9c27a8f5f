"""While PostgreSQL is away or only reads, what must be stored is refused, and the probe fails."""

import pytest
from sqlalchemy import make_url

from dia_server.settings import Settings
from tests.job_client import HELLO, Client, serving, submit, wait_until_finished
from tests.postgres import ON_POSTGRES, Postgres
from tests.tones import ToneModel
from tests.waiting import until

pytestmark = ON_POSTGRES

OUTAGES = {
    "away": ("ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true", "PostgreSQL cannot be reached"),
    "read-only": (
        "SET default_transaction_read_only = on",
        "RESET default_transaction_read_only",
        "PostgreSQL only reads, as a standby does",
    ),
}
"""Changes of the database that begin and end an outage, and the cause that clients read."""


async def is_ready(client: Client) -> bool:
    return (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("outage", OUTAGES)
async def test_jobs_are_refused_during_an_outage(settings: Settings, postgres: Postgres, outage: str) -> None:
    begin, end, cause = OUTAGES[outage]
    database = make_url(settings.database_url).database
    async with serving(settings, ToneModel()) as client:
        first = await submit(client)
        await wait_until_finished(client, first)
        assert await is_ready(client)

        postgres.execute(f"ALTER DATABASE {database} {begin}")
        postgres.disconnect()

        for refused in (
            await client.get("/health/ready"),
            await client.post("/generate?async_mode=true", json=HELLO),
            await client.post("/voice_mappings", json={"voice_id": "mine"}),
        ):
            assert (refused.status_code, refused.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE")
            assert refused.json()["detail"] == f"The database cannot be used at the moment: {cause}"
            assert int(refused.headers["retry-after"]) > 0
        assert (await client.post("/generate", json=HELLO)).status_code == 200

        postgres.execute(f"ALTER DATABASE {database} {end}")
        postgres.disconnect()
        await until(lambda: is_ready(client))
        await wait_until_finished(client, await submit(client))
