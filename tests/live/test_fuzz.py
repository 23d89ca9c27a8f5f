"""Random texts and damaged files neither crash the server nor are answered with 5xx."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import httpx
import pytest

from tests.fuzz.audio_files import audio_files
from tests.fuzz.texts import texts
from tests.live.server import Server

T = TypeVar("T")

AT_ONCE = 6
"""Concurrent requests."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fuzz")
    with Server(
        folder,
        auto_transcribe=False,
        rate_limit_generate=0,
        rate_limit_upload=0,
    ) as server:
        yield server


@pytest.mark.parametrize(
    "count", [pytest.param(170, id="gate"), pytest.param(100_000, id="full", marks=pytest.mark.full)]
)
def test_random_texts_are_spoken_or_refused(server: Server, count: int) -> None:
    async def speak(client: httpx.AsyncClient, text: str) -> httpx.Response:
        body = {"text": text, "response_format": "pcm"}
        return await client.post("/generate", json=body)

    statuses = asyncio.run(send(server, islice(texts(seed=1), count), speak))

    assert {*statuses} <= {200, 422}, statuses
    assert statuses[200] > 0.9 * count
    assert statuses[422] > 0  # else it has not been hard enough
    assert_alive(server)


@pytest.mark.parametrize(
    "count", [pytest.param(170, id="gate"), pytest.param(30_000, id="full", marks=pytest.mark.full)]
)
def test_damaged_files_are_stored_or_refused(server: Server, count: int) -> None:
    async def upload(client: httpx.AsyncClient, file: bytes) -> httpx.Response:
        return await client.post(
            "/audio_prompts/upload",
            data={"prompt_id": "fuzz"},
            files={"audio_file": ("damaged.wav", file)},
        )

    statuses = asyncio.run(send(server, islice(audio_files(seed=1), count), upload))

    assert {*statuses} <= {200, 201, 422}, statuses
    assert statuses[422] > 0.05 * count
    assert statuses[200] + statuses[201] > 0.2 * count
    assert_alive(server)


async def send(
    server: Server, inputs: Iterable[T], request: Callable[[httpx.AsyncClient, T], Awaitable[httpx.Response]]
) -> Counter[int]:
    """Send a request for each input, AT_ONCE concurrently; return how often each status was answered."""
    statuses: Counter[int] = Counter()
    left = iter(inputs)

    async def work(client: httpx.AsyncClient) -> None:
        for one in left:
            answer = await request(client, one)
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, f"{answer.text} for {ascii(one)[:400]}"

    async with (
        httpx.AsyncClient(base_url=server.url, timeout=120) as client,
        asyncio.TaskGroup() as workers,
    ):
        for _ in range(AT_ONCE):
            workers.create_task(work(client))
    return statuses


def assert_alive(server: Server) -> None:
    """Assert that the server answers and has not restarted."""
    assert server.process is not None
    assert server.process.poll() is None
    assert "server process crashed" not in server.log
    assert server.get("/health").json()["status"] == "healthy"
