"""Audio that a real server streams while it is generated."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from benchmarks.load import resident_mb
from tests.each import each
from tests.live import failing_server
from tests.live.clients import LONG, Reader, active, wait_for
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.memory import linux_only
from tests.waiting import wait_until

ENDLESS = "It goes on and on. " * 20
"""Text that takes the slow server minutes."""
PATHS = [("/generate", "text"), ("/v1/audio/speech", "input")]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a tone model at twice real time; see failing_server.py for special texts."""
    command = (sys.executable, failing_server.__file__, "serve")
    folder = tmp_path_factory.mktemp("slow")
    with Server(folder, command=command, rate_limit_generate=0, rate_limit_jobs=0) as server:
        yield server


@each("audio_format", ["wav", "mp3", "opus", "aac", "flac", "pcm"])
def test_audio_is_sent_while_the_rest_is_made(slow: Server, audio_format: str) -> None:
    """benchmarks/streaming.py measures the time to first audio."""
    assert_streams(slow, "/generate", "text", audio_format)


@pytest.mark.parametrize(
    "audio_format",
    ["mp3", *(pytest.param(one, marks=pytest.mark.full) for one in ("wav", "opus", "aac", "flac", "pcm"))],
)
def test_openais_route_sends_audio_while_the_rest_is_made(slow: Server, audio_format: str) -> None:
    assert_streams(slow, "/v1/audio/speech", "input", audio_format)


def assert_streams(slow: Server, path: str, field: str, audio_format: str) -> None:
    body = {field: ENDLESS, "stream": True, "response_format": audio_format}
    with httpx.stream("POST", slow.url + path, json=body, timeout=60) as answer:
        audio = answer.iter_raw()  # kept: the response is closed with it
        assert next(audio)
        assert active(slow) > 0


@pytest.mark.parametrize(("path", "field"), PATHS)
def test_a_client_that_leaves_a_stream_frees_its_slots(slow: Server, path: str, field: str) -> None:
    with httpx.stream("POST", slow.url + path, json={field: ENDLESS, "stream": True}, timeout=60) as answer:
        next(answer.iter_raw())

    wait_for(slow, busy=False)
    assert "Traceback" not in slow.log


def test_a_client_that_hardly_reads_and_leaves_frees_its_slots(slow: Server) -> None:
    with Reader(slow, ENDLESS) as reader:
        reader.read_for(1, per_second=1000)

    wait_for(slow, busy=False)


@pytest.mark.parametrize("extra", [{"stream": True}, {"stream_format": "sse"}])
def test_a_failure_in_mid_stream_breaks_the_response_off(slow: Server, extra: dict[str, object]) -> None:
    with httpx.stream(
        "POST", f"{slow.url}/v1/audio/speech", json={"input": "This will fail. " * 20, **extra}, timeout=60
    ) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            b"".join(answer.iter_raw())

    assert answer.num_bytes_downloaded > 10_000
    wait_for(slow, busy=False)


FAST = 10_000_000
SLOW = 10_000
"""Bytes per second of a reader to whom 40 s of samples, 7 MB, wait to be sent."""
A_MINUTE = LONG[:430]
"""Text whose audio, 10 MB at speed 0.25, fills what may wait for a slow reader; that of LONG is 100 MB."""
BOUND_MB = 10
"""Maximum of memory in MB that a slow reader of LONG costs more than one of A_MINUTE."""


@linux_only
def test_a_slow_reader_costs_no_memory(server: Server) -> None:
    with Reader(server, LONG) as reader:
        reader.read_for(3, per_second=FAST)
    with Reader(server, A_MINUTE) as reader:
        reader.read_for(6, per_second=SLOW)
        before = resident_mb(server)

    with Reader(server, LONG) as reader:
        reader.read_for(4, per_second=SLOW)
        grown = resident_mb(server) - before

    assert grown < BOUND_MB


@linux_only
def test_a_slow_reader_of_a_websocket_costs_no_memory(server: Server) -> None:
    with reading_websocket(server, LONG) as client:
        assert client.read_for(3, per_second=FAST)
    with reading_websocket(server, A_MINUTE) as client:
        assert client.read_for(6, per_second=SLOW)
        before = resident_mb(server)

    with reading_websocket(server, LONG) as client:
        assert client.read_for(4, per_second=SLOW)
        grown = resident_mb(server) - before

    assert grown < BOUND_MB


@contextmanager
def reading_websocket(server: Server, text: str) -> Iterator[WebSocketClient]:
    """Generate like `Reader`."""
    with WebSocketClient(server.port, "/ws/generate") as client:
        client.limit_receive_buffer()
        client.send({"type": "generate", "data": {"text": text, "stream": True, "speed": 0.25}})
        yield client


def test_a_client_that_hardly_reads_and_closes_its_websocket_frees_its_slots(slow: Server) -> None:
    log_before = len(slow.log)
    with WebSocketClient(slow.port, "/ws/generate") as client:
        client.limit_receive_buffer()
        client.send({"type": "generate", "data": {"text": ENDLESS, "stream": True}})
        job_id = client.receive()["job_id"]
        client.read_for(1, per_second=1000)

    wait_for(slow, busy=False)
    wait_until(lambda: slow.get(f"/jobs/{job_id}").json()["status"] == "cancelled")
    assert "Traceback" not in slow.log[log_before:]


def test_a_generation_cancelled_while_it_waits_for_its_reader_ends_between_two_messages(
    server: Server,
) -> None:
    with reading_websocket(server, LONG) as client:
        job_id, size = client.receive()["job_id"], None
        while not isinstance(client.receive(), bytes):
            pass
        wait_for(server, busy=False)  # it waits for the reader only
        assert server.get(f"/jobs/{job_id}").json()["status"] == "processing"
        client.send({"type": "cancel", "job_id": job_id})
        while (message := client.receive()) != {"type": "cancelled", "job_id": job_id}:
            if size is not None:
                assert len(message) == size
            size = message["size"] if size is None and message["type"] == "audio" else None

    assert size is None


def test_the_openai_sdk_writes_a_stream_to_a_file(server: Server, tmp_path: Path) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="anything", max_retries=0)
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=LONG[:1000], response_format="mp3"
    ) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        answer.stream_to_file(tmp_path / "speech.mp3")

    assert (tmp_path / "speech.mp3").stat().st_size > 200_000


def test_the_openai_sdk_gets_events(server: Server) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="anything", max_retries=0)
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=LONG[:500], response_format="pcm", stream_format="sse"
    ) as answer:
        lines = [line for line in answer.iter_lines() if line]

    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert len(events) > 3
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert events[-1]["type"] == "speech.audio.done"
