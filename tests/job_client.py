"""A server in this process with a scripted model: its jobs, their files and their rows."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.engine.types import EngineName, Model
from dia_server.services.jobs.outputs import MARKER
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.rows import execute
from tests.tones import loader
from tests.waiting import until

Client = AsyncTestClient[Litestar]

HELLO = {"text": "Hello, async world!", "voice_id": "aria"}


@asynccontextmanager
async def serving(
    settings: Settings,
    model: Model,
    engine: EngineName = "preview",
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> AsyncIterator[Client]:
    """Yield a client of a server whose engine, named `engine`, has loaded `model`."""
    app = create_app(settings, Engine(engine, loader(model), max_waiting=8), timing=timing)
    async with AsyncTestClient(app, raise_server_exceptions=False) as client:
        await until(lambda: loaded(client))
        yield client


async def loaded(client: Client) -> bool:
    return bool((await client.get("/health")).json()["model_loaded"])


async def submit(client: Client, **fields: Any) -> str:
    answer = await client.post("/generate?async_mode=true", json=HELLO | fields)
    assert answer.status_code == 200
    return str(answer.json()["job_id"])


async def job(client: Client, job_id: str) -> dict[str, Any]:
    details: dict[str, Any] = (await client.get(f"/jobs/{job_id}")).json()
    return details


async def wait_until_finished(client: Client, job_id: str) -> dict[str, Any]:
    """Wait until a job has ended, and return its details."""

    async def finished() -> bool:
        return (await job(client, job_id))["status"] not in {"pending", "processing"}

    await until(finished)
    return await job(client, job_id)


def names(settings: Settings) -> set[str]:
    """Return the names of all result files."""
    return {path.name for path in settings.audio_outputs.iterdir()} - {MARKER}


def connect(settings: Settings) -> sqlite3.Connection:
    """Connect to the server's SQLite file; each statement commits by itself."""
    return sqlite3.connect(Path(settings.data_dir) / "dia.sqlite3", isolation_level=None)


def change(settings: Settings, statement: str) -> None:
    """Execute a statement on the server's database."""
    execute(settings.sqlalchemy_url, statement)
