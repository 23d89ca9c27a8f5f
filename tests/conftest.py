import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.settings import Settings
from tests import whisper_model
from tests.live.server import Server
from tests.waiting import until

# the models are so small that threads would mostly wait for each other; servers of tests inherit it
os.environ["OMP_NUM_THREADS"] = "1"


FIRST = ("browser", "live", "clients", "test_reference.py", "test_docs.py", "deploy", "engine", "services")
"""Folders and files whose tests take longest, in the order in which they begin."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: FIRST.index(name) if (name := _room(item)) in FIRST else len(FIRST))


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a server in a folder of its own, with the preview engine, no rate limits and no Whisper."""
    return Settings(
        data_dir=str(tmp_path),
        engine="preview",
        rate_limit_generate=0,
        rate_limit_upload=0,
        rate_limit_jobs=0,
        auto_transcribe=False,
        log_level="error",
    )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[AsyncTestClient[Litestar]]:
    async with AsyncTestClient(create_app(settings), raise_server_exceptions=False) as client:

        async def is_loaded() -> bool:
            return bool((await client.get("/health")).json()["model_loaded"])

        await until(is_loaded)
        yield client


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Whisper, which takes seconds to make and a moment to load."""
    return whisper_model.build(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A preview server in a process of its own, without rate limits, that the tests of a module share."""
    with Server(
        tmp_path_factory.mktemp("server"), rate_limit_generate=0, rate_limit_upload=0, rate_limit_jobs=0
    ) as server:
        yield server
