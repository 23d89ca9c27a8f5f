from typing import Any

from litestar import Litestar
from litestar.testing import AsyncTestClient, TestClient

from dia_server.app import create_app
from dia_server.settings import Settings
from tests.recordings import wav_file

Client = AsyncTestClient[Litestar]

MAPPING = {"voice_id": "mine"}


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", "/generate", {"text": "a\0b"}, "text"),
    ("POST", "/generate", {"text": "a", "voice_id": "aria\0"}, "voice_id"),
    ("POST", "/generate?async_mode=true", {"text": "a\0b"}, "text"),
    ("POST", "/plan", {"text": "a\0b"}, "text"),
    ("POST", "/v1/audio/speech", {"input": "a\0b"}, "input"),
    ("POST", "/v1/audio/speech", {"input": "a", "voice": {"id": "aria\0"}}, "voice.id"),
    ("POST", "/voice_mappings", MAPPING | {"style": "a\0b"}, "style"),
    ("POST", "/voice_mappings", MAPPING | {"audio_prompt_transcript": "\0"}, "audio_prompt_transcript"),
    ("PUT", "/pronunciations", {"word": "a\0b", "respelling": "b"}, "word"),
    ("PUT", "/audio_prompts/one/transcript", {"transcript": "a\0b"}, "transcript"),
]


async def test_a_text_with_a_nul_is_refused_on_every_route(client: Client) -> None:
    for method, path, body, field in REFUSED:
        answer = await client.request(method, path, json=body)

        error = answer.json()
        detail = error["error"]["message"] if path.startswith("/v1") else error["detail"]
        assert (answer.status_code, detail) == (422, f"{field}: a NUL character is not allowed"), path


async def test_a_field_of_a_form_with_a_nul_is_refused(client: Client) -> None:
    form = {"prompt_id": "one", "transcript": "One."}
    files = {"audio_file": ("x.wav", wav_file(1.0))}
    for field in form:
        answer = await client.post("/audio_prompts/upload", data=form | {field: "on\0e"}, files=files)
        assert answer.status_code == 422
        assert answer.json()["detail"] == f"{field}: a NUL character is not allowed"


def test_a_message_with_a_nul_is_refused(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client, client.websocket_connect("/ws/generate") as socket:
        socket.send_json({"type": "generate", "data": {"text": "a\0b"}, "request_id": "mine"})
        error = socket.receive_json(timeout=5)

    assert error == {
        "type": "error",
        "message": "data.text: a NUL character is not allowed",
        "error_code": "VALIDATION_ERROR",
        "param": "data.text",
        "request_id": "mine",
    }


async def test_a_backslash_before_the_digits_of_a_nul_is_text(client: Client) -> None:
    answer = await client.post("/plan", json={"text": r"Write \u0000 for it."})

    assert answer.status_code == 200


async def test_a_url_with_a_nul_is_refused(client: Client) -> None:
    for path in ("/jobs/%00", "/static/docs/%00", "/audio_prompts/a%00b/audio"):
        answer = await client.get(path)

        assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")
