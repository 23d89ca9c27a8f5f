"""A larger limit than the reference's, for those who set it."""

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
"""The largest that may be set."""


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    larger = msgspec.structs.replace(settings, max_characters=LIMIT)
    async with AsyncTestClient(create_app(larger), raise_server_exceptions=False) as client:
        yield client


async def test_the_limit_that_holds_is_told(client: Client) -> None:
    for path, field in (("/generate", "text"), ("/v1/audio/speech", "input")):
        answer = await client.post(path, json={field: "x" * (LIMIT + 1)})
        assert (answer.status_code, answer.json()["error_code"]) == (422, "TEXT_TOO_LONG")
        assert answer.json()["detail"] == "The text has 80001 characters; the limit is 80000"

    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert schemas["GenerateRequest"]["properties"]["text"]["maxLength"] == LIMIT
    assert schemas["SpeechRequest"]["properties"]["input"]["maxLength"] == LIMIT


async def test_the_longest_text_is_taken_however_it_is_escaped(client: Client) -> None:
    body = json.dumps({"text": "\U0001f44d" * LIMIT})  # twelve bytes each
    headers = {"Content-Type": "application/json"}

    answer = await client.post("/plan", content=body, headers=headers)

    assert answer.status_code == 200
    assert sum(len(piece["text"]) for piece in answer.json()["utterances"]) > LIMIT


async def test_the_pauses_between_pieces_are_none_that_a_text_asks_for(client: Client) -> None:
    """There are more than 120 s of them, which is the most that it may ask for."""
    sentence = "This is one more sentence of a text that goes on and on for far longer than an hour. "
    text = (sentence * 1000)[:LIMIT]

    pieces = (await client.post("/plan", json={"text": text})).json()["utterances"]

    assert sum(piece["pause_before_s"] for piece in pieces) > 120
    asks = await client.post("/plan", json={"text": "Wait. [pause:10s] " * 13})
    assert asks.json()["detail"] == "The text asks for 130 s of pauses; the limit is 120 s"


async def test_a_text_longer_than_the_reference_allows_is_spoken(client: Client) -> None:
    answer = await client.post(
        "/generate", json={"text": "word " * 1200, "speed": 4, "response_format": "pcm"}
    )

    assert len(answer.content) / 48_000 > 60
