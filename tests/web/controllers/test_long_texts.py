"""DIA_MAX_CHARACTERS above the reference's limit of 4,096."""

import json
from collections.abc import AsyncIterator

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.settings import Settings

Client = AsyncTestClient[Litestar]

LIMIT = 80_000
"""Maximum value of DIA_MAX_CHARACTERS."""


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    larger = msgspec.structs.replace(settings, max_characters=LIMIT)
    async with AsyncTestClient(create_app(larger), raise_server_exceptions=False) as client:
        yield client


async def test_the_configured_limit_is_reported(client: Client) -> None:
    for path, field in (("/generate", "text"), ("/v1/audio/speech", "input")):
        answer = await client.post(path, json={field: "x" * (LIMIT + 1)})
        assert (answer.status_code, answer.json()["error_code"]) == (422, "TEXT_TOO_LONG")
        assert answer.json()["detail"] == "The text has 80001 characters; the limit is 80000"

    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert schemas["GenerateRequest"]["properties"]["text"]["maxLength"] == LIMIT
    assert schemas["SpeechRequest"]["properties"]["input"]["maxLength"] == LIMIT


async def test_the_longest_text_is_accepted_with_any_escaping(client: Client) -> None:
    body = json.dumps({"text": "\U0001f44d" * LIMIT, "normalize": False})  # twelve bytes each
    headers = {"Content-Type": "application/json"}

    answer = await client.post("/plan", content=body, headers=headers)

    assert answer.status_code == 200
    assert sum(len(segment["text"]) for segment in answer.json()["utterances"]) > LIMIT


async def test_pauses_between_segments_do_not_count_as_requested_pauses(client: Client) -> None:
    """They exceed 120 s, the limit of requested pauses."""
    sentence = "This is one more sentence of a text that goes on and on for far longer than an hour. "
    text = (sentence * 1000)[:LIMIT]

    segments = (await client.post("/plan", json={"text": text})).json()["utterances"]

    assert sum(segment["pause_before_s"] for segment in segments) > 120
    asks = await client.post("/plan", json={"text": "Wait. [pause:10s] " * 13})
    assert asks.json()["detail"] == "The text asks for 130 s of pauses; the limit is 120 s"


async def test_a_text_longer_than_the_reference_allows_is_spoken(client: Client) -> None:
    answer = await client.post(
        "/generate", json={"text": "word " * 1200, "speed": 4, "response_format": "pcm"}
    )

    assert len(answer.content) / 48_000 > 60
