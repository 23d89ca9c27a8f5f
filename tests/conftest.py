import asyncio
import fcntl
import gc
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.db.engine import Database
from dia_server.db.preparation import prepare
from dia_server.services import object_store
from dia_server.settings import Settings
from tests import whisper_model
from tests.live.server import Server
from tests.postgres import DATABASES, EVERYWHERE, Postgres, running
from tests.storage import S3
from tests.waiting import until

# with models this small, threads would mostly wait for each other; the tests' servers inherit it
os.environ["OMP_NUM_THREADS"] = "1"


FIRST = ("browser", "live", "clients", "test_reference.py", "test_docs.py", "deploy", "engine", "services")
"""Folders and files with the slowest tests, in the order in which they start."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slowest tests first, so that none of them runs alone at the end."""
    items.sort(key=lambda item: FIRST.index(name) if (name := _room(item)) in FIRST else len(FIRST))


def pytest_collection_finish() -> None:
    """Collect garbage less often: a full collection looks at the modules of all tests, for 0.3 s."""
    gc.freeze()
    gc.set_threshold(20_000)


ON_BOTH_DATABASES = ("services/jobs", "services/voices", "services/test_config.py")
"""Folders and files whose tests without a server run on each database; others choose by `tests.postgres`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests on the databases that their folder or POSTGRES_TESTS names, unless a mark chooses."""
    marks = [mark.name for mark in metafunc.definition.iter_markers()]
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "database_url" not in metafunc.fixturenames or "sqlite" in marks or "database_url" in chosen:
        return
    if EVERYWHERE:
        metafunc.parametrize("database_url", ["postgresql"], indirect=True)
    elif "settings" in metafunc.fixturenames:
        return
    elif str(metafunc.definition.path.relative_to(Path(__file__).parent)).startswith(ON_BOTH_DATABASES):
        metafunc.parametrize("database_url", DATABASES, indirect=True)


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings of a preview server in its own folder, without rate limits and Whisper."""
    return Settings(
        data_dir=str(tmp_path),
        database_url="" if database_url.startswith("sqlite") else database_url,
        engine="preview",
        rate_limit_generate=0,
        rate_limit_upload=0,
        rate_limit_jobs=0,
        auto_transcribe=False,
        log_level="error",
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL server in its own folder; see `tests.postgres.running` if it is not installed."""
    with running() as postgres:
        yield postgres


@pytest.fixture(scope="session")
def upgraded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SQLite file of the newest revision."""
    file = tmp_path_factory.mktemp("upgraded") / "dia.sqlite3"
    asyncio.run(prepare(f"sqlite+aiosqlite:///{file}"))
    return file


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a database: the file dia.sqlite3, or as `tests.postgres` marks the test.

    In the tests of services and web it has its tables already, which is faster. Elsewhere it is empty, and
    the file is not created yet.
    """
    upgraded = _room(request.node) in {"services", "web"}
    if getattr(request, "param", "sqlite") == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        return postgres.create_upgraded() if upgraded else postgres.create()
    if upgraded:
        shutil.copy(request.getfixturevalue("upgraded_file"), tmp_path)
    return f"sqlite+aiosqlite:///{tmp_path}/dia.sqlite3"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """Server of S3 on loopback."""
    s3 = S3()
    s3.start()
    yield s3
    s3.stop()


@pytest.fixture
def storage_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """DIA_STORAGE of an empty object storage: a folder or a bucket, as `tests.storage` marks the test."""
    monkeypatch.setattr(object_store, "RETRIES", 0)  # each takes up to a second
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        for name, value in s3.variables.items():
            monkeypatch.setenv(name, value)
        return s3.create()
    (tmp_path / "storage").mkdir()
    return f"file://{tmp_path}/storage"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Empty database of the newest revision, at `database_url`."""
    database = Database(database_url)
    await database.upgrade()
    yield database
    await database.close()


@pytest.fixture
async def other_database(database: Database, database_url: str) -> AsyncIterator[Database]:
    """The connections of a second server to `database`."""
    other = Database(database_url)
    yield other
    await other.close()


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[AsyncTestClient[Litestar]]:
    async with AsyncTestClient(create_app(settings), raise_server_exceptions=False) as client:

        async def is_loaded() -> bool:
            return bool((await client.get("/health")).json()["model_loaded"])

        await until(is_loaded)
        yield client


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random Whisper model: seconds to build, milliseconds to load.

    The first of the parallel test processes that needs it builds it for all.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return whisper_model.build(tmp_path_factory.mktemp("whisper"))
    shared = tmp_path_factory.getbasetemp().parent / "whisper"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            whisper_model.build(tmp_path_factory.mktemp("whisper")).rename(shared)
    return shared


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Preview server in its own process, without rate limits, shared by the tests of a module."""
    with Server(
        tmp_path_factory.mktemp("server"), rate_limit_generate=0, rate_limit_upload=0, rate_limit_jobs=0
    ) as server:
        yield server
