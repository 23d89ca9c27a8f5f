"""Jobs and WebSocket messages are refused at submission with the same errors as requests."""

from typing import Any

from litestar import Litestar
from litestar.testing import AsyncTestClient, TestClient

from dia_server.app import create_app
from dia_server.settings import Settings

Client = AsyncTestClient[Litestar]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"text": "A [pause:10s]" * 13 + "b"}, "VALIDATION_ERROR"),
    ({"text": "Hi.", "voice_id": "mute"}, "AUDIO_PROMPT_NOT_USABLE"),
    ({"text": "[pause:1s]"}, "VALIDATION_ERROR"),
    ({"text": "x" * 4097}, "TEXT_TOO_LONG"),
]
MUTE = {"voice_id": "mute", "audio_prompt": "nowhere"}


async def test_a_job_is_refused_with_the_same_error_as_a_request(client: Client) -> None:
    await client.post("/voice_mappings", json=MUTE)
    for body, code in REFUSED:
        at_once = await client.post("/generate", json=body)
        later = await client.post("/generate?async_mode=true", json=body)

        assert (at_once.status_code, at_once.json()["error_code"]) == (422, code)
        assert (later.status_code, later.json()["error_code"]) == (422, code)
        assert later.json()["detail"] == at_once.json()["detail"]
    assert (await client.get("/jobs")).json() == {"jobs": []}


def test_a_websocket_message_is_refused_with_the_same_error_as_a_request(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        client.post("/voice_mappings", json=MUTE)
        with client.websocket_connect("/ws/generate") as socket:
            for body, code in REFUSED:
                socket.send_json({"type": "generate", "data": body})
                error = socket.receive_json(timeout=5)
                assert (error["type"], error["error_code"], error.get("job_id")) == ("error", code, None)
        assert client.get("/jobs").json() == {"jobs": []}
