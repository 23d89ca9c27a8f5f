"""With its database file missing or replaced, the server refuses writes, and the probe fails."""

import os
import shutil
from pathlib import Path

import pytest

from dia_server.db import file as database_file
from dia_server.settings import Settings
from tests.job_client import HELLO, Client, serving, submit, wait_until_finished
from tests.tones import ToneModel

pytestmark = pytest.mark.sqlite


async def ready(client: Client) -> int:
    return (await client.get("/health/ready")).status_code


@pytest.mark.parametrize(
    ("replaced", "cause"), [(False, "cannot be found"), (True, "was replaced while the server ran")]
)
async def test_jobs_are_refused_until_the_database_file_is_back(
    settings: Settings, replaced: bool, cause: str
) -> None:
    path = Path(settings.data_dir) / "dia.sqlite3"
    away = path.with_name("away")
    async with serving(settings, ToneModel()) as client:
        first = await submit(client)
        await wait_until_finished(client, first)
        os.replace(path, away)
        if replaced:
            shutil.copy(away, path)

        for refused in (
            await client.post("/generate?async_mode=true", json=HELLO),
            await client.post("/voice_mappings", json={"voice_id": "mine"}),
            await client.get("/health/ready"),
        ):
            assert (refused.status_code, refused.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE")
            assert cause in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) > 0
        assert (await client.post("/generate", json=HELLO)).status_code == 200

        os.replace(away, path)
        assert await ready(client) == 200
        second = await submit(client)
        assert (await wait_until_finished(client, second))["status"] == "completed"
        assert [job["job_id"] for job in (await client.get("/jobs")).json()["jobs"]] == [second, first]


async def test_the_probe_reports_a_full_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(settings, ToneModel()) as client:
        assert await ready(client) == 200
        with monkeypatch.context() as patch:
            patch.setattr(database_file, "MIN_FREE_BYTES", 2**62)
            refused = await client.get("/health/ready")
        assert (refused.status_code, refused.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE")
        assert "the disk is full" in refused.json()["detail"]
        assert await ready(client) == 200
