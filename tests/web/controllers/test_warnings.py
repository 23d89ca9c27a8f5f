"""A text that is mostly not English gets a warning on every route, and is spoken."""

import json
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient, TestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.settings import Settings
from dia_server.web.middleware.cross_origin import EXPOSED_HEADERS
from tests.each import each
from tests.job_client import wait_until_finished
from tests.tones import ToneModel, loader
from tests.waiting import wait_until

Client = AsyncTestClient[Litestar]

GERMAN = "Die Katze sitzt auf dem Dach und schläft."
ENGLISH = "The cat is on the roof."
WARNING = {"code": "other_language", "message": "The text seems to be German; only English is spoken"}
HEADER = "other_language (The text seems to be German; only English is spoken)"


@each(
    ("route", "field", "body"),
    [
        ("/generate", "text", {}),
        ("/generate", "text", {"stream": True}),
        ("/generate", "text", {"timestamps": "sentence"}),
        ("/generate", "text", {"timestamps": "sentence", "stream": True}),
        ("/v1/audio/speech", "input", {}),
        ("/v1/audio/speech", "input", {"response_format": "mp3"}),
        ("/v1/audio/speech", "input", {"stream_format": "sse"}),
    ],
)
async def test_audio_has_the_header(client: Client, route: str, field: str, body: dict[str, Any]) -> None:
    foreign = await client.post(route, json=body | {field: GERMAN})
    english = await client.post(route, json=body | {field: ENGLISH})

    assert (foreign.status_code, foreign.headers["x-warnings"]) == (200, HEADER)
    assert (english.status_code, "x-warnings" in english.headers) == (200, False)


def test_pages_of_other_origins_may_read_the_header() -> None:
    assert "X-Warnings" in EXPOSED_HEADERS


async def test_the_first_event_has_the_warning(client: Client) -> None:
    async def deltas(text: str) -> list[Any]:
        body = {"input": text, "stream_format": "sse", "response_format": "pcm"}
        answer = await client.post("/v1/audio/speech", json=body)
        events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
        return [event for event in events if event["type"] == "speech.audio.delta"]

    first, *others = await deltas(f"{GERMAN} " * 10)
    assert first["warnings"] == [WARNING]
    assert others
    assert not any("warnings" in event for event in [*others, *await deltas(ENGLISH)])


@pytest.mark.parametrize(("text", "warnings"), [(GERMAN, [WARNING]), (ENGLISH, [])])
async def test_plans_and_jobs_have_the_warning(client: Client, text: str, warnings: list[Any]) -> None:
    plan = (await client.post("/plan", json={"text": text})).json()
    accepted = (await client.post("/generate?async_mode=true", json={"text": text})).json()
    details = await wait_until_finished(client, accepted["job_id"])
    result = await client.get(f"/jobs/{accepted['job_id']}/result")

    assert plan["warnings"] == details["warnings"] == warnings
    assert accepted.get("warnings") == (warnings or None)
    assert result.headers.get("x-warnings") == (HEADER if warnings else None)
    assert details["status"] == "completed"


def test_the_first_progress_of_the_websocket_has_the_warning(settings: Settings) -> None:
    app = create_app(settings, Engine("preview", loader(ToneModel()), max_waiting=8))
    with TestClient(app) as client:
        wait_until(lambda: client.get("/health").json()["model_loaded"])
        with client.websocket_connect("/ws/generate") as socket:
            socket.send_json({"type": "generate", "data": {"text": GERMAN}})
            messages = [socket.receive_json(timeout=5)]
            while messages[-1]["type"] != "complete":
                messages.append(socket.receive_json(timeout=5))

    first, *others = messages
    assert (first["type"], first["stage"], first["warnings"]) == ("progress", "queued", [WARNING])
    assert not any("warnings" in message for message in others)
