from datetime import datetime
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.errors import AudioProcessingError, EngineLost, GpuOutOfMemory, Invalid
from dia_server.settings import Settings
from dia_server.web import websocket_messages
from dia_server.web.requests import json_body
from tests.each import each
from tests.tones import ToneModel, loader

Client = AsyncTestClient[Litestar]
Body = dict[str, Any]


def assert_native(body: Body, code: str) -> None:
    assert body.keys() - {"param", "limit"} == {"detail", "error_code", "timestamp"}
    assert body["error_code"] == code
    assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None


def assert_openai(body: Body, code: str, param: str | None = None) -> None:
    assert body.keys() == {"error", "detail", "error_code", "timestamp"}
    assert body["error_code"] == code
    assert body["error"].keys() - {"limit"} == {"message", "type", "param", "code"}
    assert (body["error"]["code"], body["error"]["param"]) == (code.lower(), param)
    assert body["error"]["message"] == body["detail"]


@each(
    ("wrong", "status", "code", "field"),
    [
        ({"text": None}, 422, "VALIDATION_ERROR", "text"),
        ({"text": 5}, 422, "VALIDATION_ERROR", "text"),
        ({"text": ""}, 422, "VALIDATION_ERROR", "text"),
        ({"text": " * \n"}, 422, "VALIDATION_ERROR", "text"),
        ({"text": "x" * 4097}, 422, "TEXT_TOO_LONG", "4096"),
        ({"voice_id": "nobody"}, 404, "INVALID_VOICE_ID", "nobody"),
        ({"voice_id": 1}, 422, "VALIDATION_ERROR", "voice_id"),
        ({"response_format": "midi"}, 422, "VALIDATION_ERROR", "response_format"),
        ({"speed": 0.24}, 422, "VALIDATION_ERROR", "0.25"),
        ({"speed": 4.01}, 422, "VALIDATION_ERROR", "4"),
        ({"speed": "1.5"}, 422, "VALIDATION_ERROR", "speed"),
        ({"speed": True}, 422, "VALIDATION_ERROR", "speed"),
        ({"speed": None}, 422, "VALIDATION_ERROR", "speed"),
        ({"role": "narrator"}, 422, "VALIDATION_ERROR", "role"),
        ({"temperature": 0}, 422, "VALIDATION_ERROR", "0.1"),
        ({"temperature": 2.1}, 422, "VALIDATION_ERROR", "2"),
        ({"cfg_scale": 0.9}, 422, "VALIDATION_ERROR", "1"),
        ({"cfg_scale": 10.1}, 422, "VALIDATION_ERROR", "10"),
        ({"top_p": -0.1}, 422, "VALIDATION_ERROR", "0"),
        ({"top_p": 1.1}, 422, "VALIDATION_ERROR", "1"),
        ({"max_tokens": 99}, 422, "VALIDATION_ERROR", "100"),
        ({"max_tokens": 10_001}, 422, "VALIDATION_ERROR", "10000"),
        ({"max_tokens": 200.5}, 422, "VALIDATION_ERROR", "max_tokens"),
        ({"use_torch_compile": 0}, 422, "VALIDATION_ERROR", "use_torch_compile"),
        ({"seed": -1}, 422, "VALIDATION_ERROR", "seed"),
        ({"seed": 2**32}, 422, "VALIDATION_ERROR", "4294967295"),
    ],
)
async def test_invalid_input_is_reported_with_field_and_limit(
    client: Client, wrong: Body, status: int, code: str, field: str
) -> None:
    answer = await client.post("/generate", json={"text": "Hi", **wrong})

    assert answer.status_code == status
    assert_native(answer.json(), code)
    assert field in answer.json()["detail"]


@pytest.mark.parametrize(
    ("wrong", "param", "limit"),
    [
        ({"text": "x" * 4097}, "text", 4096),
        ({"speed": 0.24}, "speed", 0.25),
        ({"cfg_scale": 10.1}, "cfg_scale", 10),
        ({"max_tokens": 99}, "max_tokens", 100),
        ({"seed": 2**32}, "seed", 2**32 - 1),
        ({"top_p": -0.1}, "top_p", 0),
        ({"role": "narrator"}, "role", None),
        ({"voice_id": "nobody"}, "voice_id", None),
        ({"text": "x" * 2_000_000}, None, 1024 * 1024),
    ],
    ids=str,
)
async def test_errors_carry_the_field_and_the_limit(
    client: Client, wrong: Body, param: str | None, limit: float | None
) -> None:
    body = (await client.post("/generate", json={"text": "Hi", **wrong})).json()

    assert (body.get("param"), body.get("limit")) == (param, limit)
    assert None not in body.values()


async def test_openai_errors_and_query_parameters_carry_the_limit_too(client: Client) -> None:
    speech = await client.post("/v1/audio/speech", json={"input": "x" * 4097})
    jobs = await client.get("/jobs?limit=1001")

    assert (speech.json()["error"]["param"], speech.json()["error"]["limit"]) == ("input", 4096)
    assert (jobs.json()["param"], jobs.json()["limit"]) == ("limit", 1000)


@pytest.mark.parametrize("edge", [{"top_p": 0}, {"top_p": 1}, {"speed": 4}, {"max_tokens": 100}, {"seed": 0}])
async def test_limits_are_inclusive(client: Client, edge: Body) -> None:
    assert (await client.post("/generate", json={"text": "Hi", **edge})).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "status", "code", "param"),
    [
        ({"voice": "nobody"}, 404, "INVALID_VOICE_ID", "voice"),
        ({"input": "x" * 4097}, 422, "TEXT_TOO_LONG", "input"),
        ({"input": ""}, 422, "VALIDATION_ERROR", "input"),
        ({"speed": 5}, 422, "VALIDATION_ERROR", "speed"),
    ],
)
async def test_openai_clients_get_openai_errors(
    client: Client, wrong: Body, status: int, code: str, param: str
) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": "Hi", **wrong})

    assert answer.status_code == status
    assert_openai(answer.json(), code, param)


async def test_unknown_paths_and_methods_use_the_routes_error_format(client: Client) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/static/nowhere.js", 404, "NOT_FOUND"),
        ("GET", "/generate", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/health", 405, "METHOD_NOT_ALLOWED"),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert_native(answer.json(), code)
    for method, path, status, code, param in (
        ("GET", "/v1/nowhere", 404, "NOT_FOUND", None),
        ("GET", "/v1/readyz", 404, "NOT_FOUND", None),
        ("GET", "/v1/models/gpt-9", 404, "NOT_FOUND", "model"),
        ("GET", "/v1/audio/speech", 405, "METHOD_NOT_ALLOWED", None),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert_openai(answer.json(), code, param)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_json_with_another_media_type_is_refused(client: Client, media_type: str) -> None:
    answer = await client.post("/generate", content=b'{"text":"Hi"}', headers={"content-type": media_type})

    assert answer.status_code == 415
    assert_native(answer.json(), "UNSUPPORTED_MEDIA_TYPE")


@each(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"null", 422),
        (b"[]", 422),
        (b'"text"', 422),
        (b'{"text": "Hi"} trailing', 400),
        (b'{"text": "\xff\xfe"}', 400),
        (b'{"text": "\\ud800"}', 422),
        (b'{"text": "Hi", "x": ' + b"[" * 100_000, 400),
        (b'{"text": "Hi", "speed": 1e999}', 422),
        (b'{"text": "Hi", "speed": NaN}', 400),
        (b"\x00\x01\x02", 400),
    ],
)
async def test_malformed_bodies_are_refused_in_the_error_format(
    client: Client, body: bytes, status: int
) -> None:
    answer = await client.post("/generate", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == status
    assert_native(answer.json(), {400: "BAD_REQUEST", 422: "VALIDATION_ERROR"}[status])


async def test_a_body_that_is_too_large_is_refused(client: Client) -> None:
    answer = await client.post("/generate", json={"text": "x" * 2_000_000})

    assert answer.status_code == 413
    assert_native(answer.json(), "PAYLOAD_TOO_LARGE")
    assert "1,048,576 bytes" in answer.json()["detail"]


async def test_an_invalid_choice_is_refused_with_the_choices_on_every_route(client: Client) -> None:
    formats, states = "aac, flac, mp3, opus, pcm, wav", "cancelled, completed, failed, pending, processing"
    for method, path, body, choices in (
        ("GET", "/jobs?status=done", None, states),
        ("POST", "/generate", {"text": "Hi", "response_format": "ogg"}, formats),
        ("POST", "/generate", {"text": "Hi", "role": 1}, "assistant, system, user"),
        ("POST", "/plan", {"text": "Hi", "response_format": "ogg"}, formats),
        ("POST", "/v1/audio/speech", {"input": "Hi", "response_format": "ogg"}, formats),
        ("POST", "/v1/audio/speech", {"input": "Hi", "stream_format": "raw"}, "audio, sse"),
        ("POST", "/voice_mappings", {"voice_id": "a", "primary_speaker": "S3"}, "S1, S2"),
        ("PUT", "/config", {"gpu_mode": "some"}, "auto, multi, single"),
        ("PUT", "/config", {"whisper_model_size": "huge"}, "tiny, tiny.en, base"),
        ("DELETE", "/config/debug", None, "debug_mode, save_outputs"),
    ):
        answer = await client.request(method, path, json=body)
        assert answer.status_code in {404, 422}, path
        assert choices in answer.json()["detail"], path


@pytest.mark.parametrize(
    ("message", "choices"),
    [
        ('{"type": "speak"}', "type: Invalid value 'speak'; it must be one of cancel, dialogue, generate"),
        (
            '{"type": "generate", "data": {"text": "Hi", "role": "me"}}',
            "data.role: .* assistant, system, user",
        ),
    ],
)
def test_an_invalid_choice_in_a_message_is_refused_with_the_choices(message: str, choices: str) -> None:
    with pytest.raises(Invalid, match=choices):
        websocket_messages.decode(message)


async def test_a_lone_surrogate_is_dropped_without_its_neighbours(client: Client) -> None:
    """JavaScript sends one if a program cuts an emoji in two."""
    whole, cut = [
        await client.post(
            "/generate",
            content=b'{"text": "Hello %b there"}' % half,
            headers={"content-type": "application/json"},
        )
        for half in (b"", b"\\ud83d")
    ]

    assert cut.status_code == 200
    assert cut.content == whole.content


@pytest.mark.parametrize(
    ("escapes", "status"), [(json_body.MAX_ESCAPES, 200), (json_body.MAX_ESCAPES + 1, 400)]
)
async def test_surrogates_are_not_sought_in_a_body_of_millions_of_escapes(
    client: Client, escapes: int, status: int
) -> None:
    blank = b"\\n" * (escapes - 1)
    answer = await client.post(
        "/generate",
        content=b'{"text": "Hello \\ud83d", "other": "%b", "ref_audio": null}' % blank,
        headers={"content-type": "application/json"},
    )

    assert answer.status_code == status


async def answer_of(
    settings: Settings, engine: Engine, path: str, body: Body, headers: dict[str, str] | None = None
) -> Any:
    async with AsyncTestClient(create_app(settings, engine)) as client:
        while not engine.ready and engine.error is None:
            pass
        return await client.post(path, json=body, headers=headers)


def failing_loader(_: object) -> ToneModel:
    raise OSError("no weights in /models/dia")


async def test_a_missing_model_is_reported_with_its_cause(settings: Settings) -> None:
    engine = Engine("dia", failing_loader, max_waiting=1)

    answer = await answer_of(settings, engine, "/generate", {"text": "Hi"})

    assert answer.status_code == 503
    assert_native(answer.json(), "MODEL_NOT_LOADED")
    assert "no weights in /models/dia" in answer.json()["detail"]
    assert answer.headers["x-engine"] == "dia"
    assert "POST /model/load" in answer.json()["detail"]
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("path", ["/generate", "/generate?async_mode=true", "/v1/audio/speech"])
async def test_a_proxy_that_can_ask_another_server_is_told_to(settings: Settings, path: str) -> None:
    body = {"input": "Hi"} if "/v1/" in path else {"text": "Hi"}
    refused_to = {"X-Dia-Refused": "@once_more"}

    def broken() -> Engine:
        return Engine("dia", failing_loader, max_waiting=1)

    assert "x-accel-redirect" not in (await answer_of(settings, broken(), path, body)).headers
    answer = await answer_of(settings, broken(), path, body, {"X-Dia-Refused": "/health"})
    assert "x-accel-redirect" not in answer.headers
    answer = await answer_of(settings, broken(), path, body, refused_to)
    assert (answer.status_code, answer.headers["x-accel-redirect"]) == (503, "@once_more")


async def test_a_proxy_is_not_told_to_begin_work_again(settings: Settings) -> None:
    def fail() -> None:
        raise EngineLost("2 engines were lost")

    engine = Engine("dia", loader(ToneModel(before_step=fail)), max_waiting=1)

    answer = await answer_of(settings, engine, "/generate", {"text": "Hi"}, {"X-Dia-Refused": "@once_more"})

    assert (answer.status_code, answer.json()["error_code"]) == (503, "ENGINE_LOST")
    assert "x-accel-redirect" not in answer.headers


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (GpuOutOfMemory("No memory for 1000 frames", retry_after=5), 503, "GPU_OUT_OF_MEMORY"),
        (AudioProcessingError("The codec failed"), 500, "AUDIO_PROCESSING_ERROR"),
        (RuntimeError("step 7 of Hi"), 500, "INTERNAL_SERVER_ERROR"),
    ],
)
async def test_engine_failures_have_their_own_error_codes(
    settings: Settings, error: Exception, status: int, code: str
) -> None:
    def fail() -> None:
        raise error

    engine = Engine("dia", loader(ToneModel(before_step=fail)), max_waiting=1)

    answer = await answer_of(settings, engine, "/v1/audio/speech", {"input": "Hi"})

    assert answer.status_code == status
    assert_openai(answer.json(), code)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert answer.headers["x-should-retry"] == ("true" if status == 503 else "false")
