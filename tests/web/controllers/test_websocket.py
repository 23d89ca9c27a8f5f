import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import av
import pytest
from litestar import Litestar
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient
from litestar.testing.websocket_test_session import WebSocketTestSession

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.engine.types import Model
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.each import each
from tests.job_client import connect
from tests.recordings import wav_file
from tests.tones import Gate, ToneModel, loader
from tests.waiting import early_in_a_minute

MAX_WAITING = 8
PLACES = 7
"""Places for one client."""
HELLO = {"type": "generate", "data": {"text": "Hello, world!", "voice_id": "aria"}}


@contextmanager
def connected(
    settings: Settings,
    model: ToneModel,
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> Iterator[tuple[TestClient[Litestar], Any]]:
    app = create_app(settings, Engine("preview", loader(model), max_waiting=MAX_WAITING), timing=timing)
    with TestClient(app, raise_server_exceptions=False) as client:
        while not client.get("/health").json()["model_loaded"]:
            time.sleep(0.01)
        with client.websocket_connect("/ws/generate") as socket:
            yield client, socket


def until_end(socket: WebSocketTestSession, job_id: str | None = None) -> list[dict[str, Any]]:
    """Return the messages up to the one that ends a generation (of `job_id`)."""
    messages = []
    while True:
        messages.append(socket.receive_json(timeout=5))
        ends = messages[-1]["type"] in {"complete", "error", "cancelled"}
        if ends and job_id in {None, messages[-1].get("job_id")}:
            return messages


def test_the_messages_match_the_reference(settings: Settings) -> None:
    with connected(settings, ToneModel()) as (client, socket):
        socket.send_json(HELLO)
        *progress, complete = until_end(socket)

        job_id = complete["job_id"]
        assert complete == {"type": "complete", "job_id": job_id, "audio_url": f"/jobs/{job_id}/result"}
        assert progress[0] == {"type": "progress", "job_id": job_id, "progress": 0, "stage": "queued"}
        assert {message["stage"] for message in progress[1:]} == {"generating_tokens"}
        percents = [message["progress"] for message in progress]
        assert percents == sorted(percents)
        assert percents[-1] == 100
        assert client.get(complete["audio_url"]).content[:4] == b"RIFF"


def test_a_generation_takes_a_reference(settings: Settings) -> None:
    model = ToneModel()
    audio = base64.b64encode(wav_file(1.0)).decode()
    with connected(settings, model) as (_, socket):
        data = HELLO["data"] | {"ref_audio": audio, "ref_text": "My words."}  # type: ignore[operator]
        socket.send_json({"type": "generate", "data": data})
        assert until_end(socket)[-1]["type"] == "complete"
        socket.send_json({"type": "generate", "data": data | {"ref_audio": "https://example.org"}})
        error = until_end(socket)[-1]

    assert (error["type"], error["error_code"], error["param"]) == ("error", "VALIDATION_ERROR", "ref_audio")
    prompt = model.seen[0].prompt
    assert prompt is not None
    assert prompt.transcript == "[S1] My words."


def test_concurrent_generations_on_a_socket_keep_their_request_ids(settings: Settings) -> None:
    with connected(settings, ToneModel()) as (_, socket):
        for name in ("a", "b", "c"):
            socket.send_json(HELLO | {"request_id": name})
        ended: set[str] = set()
        jobs: set[str] = set()
        while len(ended) < 3:
            end = until_end(socket)[-1]
            assert end["type"] == "complete"
            ended.add(end["request_id"])
            jobs.add(end["job_id"])

        assert ended == {"a", "b", "c"}
        assert len(jobs) == 3


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_the_streamed_audio_equals_the_stored_result(settings: Settings, speed: float) -> None:
    with connected(settings, ToneModel()) as (client, socket):
        socket.send_json(
            {
                "type": "generate",
                "data": {"text": "Hello, world!", "stream": True, "response_format": "flac", "speed": speed},
            }
        )
        audio, message = b"", socket.receive_json(timeout=5)
        while message["type"] != "complete":
            if message["type"] == "audio":
                piece = socket.receive_bytes(timeout=5)
                assert len(piece) == message["size"]
                audio += piece
            message = socket.receive_json(timeout=5)

        kept = client.get(message["audio_url"]).content
        assert samples_of(audio) == samples_of(kept)


def test_cancel_frees_the_slot_and_the_other_generations_continue(settings: Settings) -> None:
    gate = Gate()
    model = ToneModel(before_step=gate)
    with connected(settings, model) as (client, socket):
        socket.send_json(HELLO)
        job_id = socket.receive_json(timeout=5)["job_id"]
        gate.entered.wait(5)
        socket.send_json({"type": "cancel", "job_id": job_id})
        assert until_end(socket)[-1] == {"type": "cancelled", "job_id": job_id}
        gate.open()
        socket.send_json(HELLO)
        assert until_end(socket)[-1]["type"] == "complete"
        assert client.get(f"/jobs/{job_id}").json()["status"] == "cancelled"
        assert not model.left


@each(
    ("message", "code"),
    [
        ("{", "BAD_REQUEST"),
        ('{"x": ' + "[" * 100_000, "BAD_REQUEST"),
        ('{"type": "generate", "data": {"text": "hi", "x": ' + '{"x": ' * 100_000, "BAD_REQUEST"),
        ('{"type": "generate", "data": {"text": "%s"}}' % (" " * 2**20), "PAYLOAD_TOO_LARGE"),
        ("[]", "VALIDATION_ERROR"),
        ('{"type": "dance"}', "VALIDATION_ERROR"),
        ('{"type": "generate", "data": {}}', "VALIDATION_ERROR"),
        ('{"type": "generate", "data": {"text": "hi", "speed": 9}}', "VALIDATION_ERROR"),
        ('{"type": "generate", "data": {"text": "  "}}', "VALIDATION_ERROR"),
        ('{"type": "generate", "data": {"text": "hi", "voice_id": "nobody"}}', "INVALID_VOICE_ID"),
        ('{"type": "generate", "data": {"text": "%s"}}' % ("x" * 4097), "TEXT_TOO_LONG"),
        ('{"type": "cancel", "job_id": "12345"}', "NOT_FOUND"),
    ],
)
def test_errors_keep_the_socket_open(settings: Settings, message: str, code: str) -> None:
    with connected(settings, ToneModel()) as (_, socket):
        socket.send_text(message)
        error = socket.receive_json(timeout=5)
        assert (error["type"], error["error_code"]) == ("error", code)
        assert error["message"]

        socket.send_json(HELLO)
        assert until_end(socket)[-1]["type"] == "complete"


def test_a_binary_message_is_refused(settings: Settings) -> None:
    with connected(settings, ToneModel()) as (_, socket):
        socket.send_bytes(b"hello")

        assert socket.receive_json(timeout=5)["error_code"] == "BAD_REQUEST"


def test_the_error_of_a_refused_message_repeats_its_request_id(settings: Settings) -> None:
    with connected(settings, ToneModel()) as (_, socket):
        socket.send_json({"type": "generate", "request_id": "mine", "data": {"text": 3}})

        assert socket.receive_json(timeout=5)["request_id"] == "mine"


def test_a_failed_generation_reports_the_cause(settings: Settings) -> None:
    def explode() -> None:
        raise RuntimeError("out of luck")

    with connected(settings, ToneModel(before_step=explode)) as (_, socket):
        socket.send_json(HELLO)
        error = until_end(socket)[-1]

        assert error["type"] == "error"
        assert error["message"] == "Generation failed: out of luck"
        assert error["error_code"] == "GENERATION_FAILED"


def test_a_known_failure_keeps_its_error_code(settings: Settings) -> None:
    gate = Gate()
    with connected(settings, ToneModel(slots=1, before_step=gate)) as (_, socket):
        socket.send_json(HELLO)
        assert gate.entered.wait(5)
        for _ in range(PLACES + 1):
            socket.send_json(HELLO)
        error = until_end(socket)[-1]
        gate.open()
        others = {until_end(socket)[-1]["type"] for _ in range(1 + PLACES)}

    assert (error["type"], error["error_code"]) == ("error", "SERVER_OVERLOADED")
    assert error["job_id"]
    assert others == {"complete"}


def test_a_loading_model_is_reported(settings: Settings) -> None:
    loaded = threading.Event()

    def load(_: Callable[[float], None]) -> Model:
        loaded.wait(10)
        return ToneModel()

    app = create_app(settings, Engine("preview", load, max_waiting=MAX_WAITING))
    with TestClient(app) as client, client.websocket_connect("/ws/generate") as socket:
        socket.send_json(HELLO)
        error = until_end(socket)[-1]
        loaded.set()

    assert (error["type"], error["error_code"]) == ("error", "MODEL_NOT_LOADED")


def test_a_model_that_cannot_be_loaded_creates_no_jobs(settings: Settings) -> None:
    def load(_: Callable[[float], None]) -> Model:
        raise OSError("no weights")

    app = create_app(settings, Engine("dia", load, max_waiting=MAX_WAITING))
    with TestClient(app) as client, client.websocket_connect("/ws/generate") as socket:
        while client.get("/health").json()["error"] is None:
            time.sleep(0.01)
        socket.send_json(HELLO)
        error = until_end(socket)[-1]

        assert (error["type"], error["error_code"]) == ("error", "MODEL_NOT_LOADED")
        assert client.get("/jobs").json()["jobs"] == []


def test_a_disconnect_cancels_the_clients_generations(settings: Settings) -> None:
    gate = Gate()
    model = ToneModel(before_step=gate)
    with connected(settings, model) as (client, socket):
        socket.send_json(HELLO)
        job_id = socket.receive_json(timeout=5)["job_id"]
        gate.entered.wait(5)
        socket.close()
        while client.get(f"/jobs/{job_id}").json()["status"] != "cancelled":
            time.sleep(0.01)
        gate.open()


@pytest.mark.sqlite
def test_a_disconnect_frees_the_slot_although_the_database_is_locked(settings: Settings) -> None:
    timing = Timing(busy_timeout_ms=50, job_retry_s=0.05)
    model = ToneModel(before_step=partial(time.sleep, 0.005))
    with connected(settings, model, timing) as (client, socket), closing(connect(settings)) as other:
        socket.send_json({"type": "generate", "data": {"text": "x" * 4000}})
        job_id = socket.receive_json(timeout=5)["job_id"]
        other.execute("BEGIN IMMEDIATE")
        while not client.get("/health").json()["active_jobs"]:
            time.sleep(0.01)
        socket.close()

        deadline = time.monotonic() + 5
        while client.get("/health").json()["active_jobs"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert client.get(f"/jobs/{job_id}").json()["status"] == "processing"

        other.execute("ROLLBACK")
        while client.get(f"/jobs/{job_id}").json()["status"] != "cancelled":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        outcome = 'dia_websocket_generations_total{outcome="cancelled",route="/ws/generate"} 1.0'
        assert outcome in client.get("/metrics").text.splitlines()


def test_sockets_and_the_outcomes_of_their_generations_are_counted(settings: Settings) -> None:
    gate = Gate()
    with connected(settings, ToneModel(before_step=gate)) as (client, socket):

        def counted(line: str) -> bool:
            return line in client.get("/metrics").text.splitlines()

        assert counted('dia_websockets_open{route="/ws/generate"} 1.0')
        socket.send_json(HELLO)
        job_id = socket.receive_json(timeout=5)["job_id"]
        gate.entered.wait(5)
        socket.send_json({"type": "cancel", "job_id": job_id})
        until_end(socket)
        gate.open()
        for message in (
            HELLO,
            HELLO,
            HELLO | {"data": {"text": "hi", "voice_id": "nobody"}},
            {"type": "dance"},
        ):
            socket.send_json(message)
            until_end(socket)
        for outcome, number in (("completed", 2), ("cancelled", 1), ("refused", 2)):
            total = "dia_websocket_generations_total"
            assert counted(f'{total}{{outcome="{outcome}",route="/ws/generate"}} {number}.0')
        socket.close()
        while not counted('dia_websockets_open{route="/ws/generate"} 0.0'):
            time.sleep(0.01)


def test_a_failed_generation_is_counted_as_failed(settings: Settings) -> None:
    def explode() -> None:
        raise RuntimeError("out of luck")

    with connected(settings, ToneModel(before_step=explode)) as (client, socket):
        socket.send_json(HELLO)
        until_end(socket)

        failed = 'dia_websocket_generations_total{outcome="failed",route="/ws/generate"} 1.0'
        assert failed in client.get("/metrics").text.splitlines()


def test_generations_count_against_the_limit(settings: Settings) -> None:
    limited = Settings(data_dir=settings.data_dir, engine="preview", rate_limit_generate=1, log_level="error")
    with connected(limited, ToneModel()) as (_, socket):
        early_in_a_minute()
        socket.send_json(HELLO)
        assert until_end(socket)[-1]["type"] == "complete"
        socket.send_json(HELLO)
        assert socket.receive_json(timeout=5)["error_code"] == "RATE_LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    ("path", "headers", "welcome"),
    [
        ("/ws/generate", {}, False),
        ("/ws/generate?api_key=wrong", {}, False),
        ("/ws/generate?api_key=secret", {}, True),
        ("/ws/generate", {"Authorization": "Bearer secret"}, True),
        ("/ws/generate?api_key=secret", {"Origin": "https://ours.example"}, True),
        ("/ws/generate?api_key=secret", {"Origin": "http://testserver.local"}, True),
        ("/ws/generate?api_key=secret", {"Origin": "https://theirs.example"}, False),
    ],
)
def test_keys_and_origins_are_checked(
    settings: Settings, path: str, headers: dict[str, str], welcome: bool
) -> None:
    strict = Settings(
        data_dir=settings.data_dir,
        engine="preview",
        api_keys=("secret",),
        cors_origins=("https://ours.example",),
        log_level="error",
    )
    with TestClient(create_app(strict), raise_server_exceptions=False) as client:
        if welcome:
            with client.websocket_connect(path, headers=headers):
                pass
        else:
            with pytest.raises(WebSocketDisconnect), client.websocket_connect(path, headers=headers):
                pass


def samples_of(audio: bytes) -> bytes:
    with av.open(io.BytesIO(audio), "r") as container:
        return b"".join(frame.to_ndarray().tobytes() for frame in container.decode(audio=0))
