"""Milliseconds from a request to the first audio of a streamed text, on the preview engine.

    python -m benchmarks.streaming [--rounds 20] [--characters 4000] [--reader 10]

Starts a server. One client opens a connection per request and disconnects after the first byte of audio
behind the file header, over HTTP or in a WebSocket's binary frames. Then a client reads 10 kB/s for some
seconds, and the growth of the server's memory is printed. Exits with status 1 if a median exceeds 150 ms.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np

from benchmarks.load import resident_mb
from dia_server.audio.encode import MEDIA_TYPES, AudioFormat, Encoder
from dia_server.units import SAMPLE_RATE
from tests.live.server import Server
from tests.live.websocket import WebSocketClient

TARGET_MS = 150
WARM_UP = 3
SENTENCE = "This sentence takes a little while to say. "
FIELDS = {"/v1/audio/speech": "input", "/generate": "text"}

Ask = Callable[[], float]
"""Function that sends a request and returns the milliseconds until the first audio."""


def header_length(audio_format: AudioFormat) -> int:
    """Return the bytes of a stream before its first audio."""
    return len(Encoder(audio_format, SAMPLE_RATE).push(np.zeros(0, np.float32)))


def over_http(server: Server, path: str, text: str, audio_format: AudioFormat) -> float:
    body = json.dumps({FIELDS[path]: text, "stream": True, "response_format": audio_format})
    header = header_length(audio_format)
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    started = time.perf_counter()
    connection.request("POST", path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    answer.read(header + 1)
    first = time.perf_counter() - started
    answer.close()
    connection.close()
    return first * 1000


def over_websocket(server: Server, text: str, audio_format: AudioFormat) -> float:
    data = {"text": text, "stream": True, "response_format": audio_format}
    header, received = header_length(audio_format), 0
    started = time.perf_counter()
    with WebSocketClient(server.port, "/ws/generate") as client:
        assert client.status == 101, client.status
        client.send({"type": "generate", "data": data})
        while received <= header:
            message = client.receive()
            if isinstance(message, bytes):
                received += len(message)
            else:
                assert message["type"] != "error", message
        return (time.perf_counter() - started) * 1000


def wait_until_idle(server: Server) -> None:
    while httpx.get(f"{server.url}/health").json()["active_jobs"]:
        time.sleep(0.01)


def measure(server: Server, ask: Ask, rounds: int) -> list[float]:
    times = []
    for number in range(WARM_UP + rounds):
        first = ask()
        wait_until_idle(server)
        if number >= WARM_UP:
            times.append(first)
    return times


def growth_mb(server: Server, text: str, seconds: float) -> float:
    """Return the peak growth of the server's memory in MB while a client reads 10 kB/s at speed 0.25."""
    before = most = resident_mb(server)
    body = {"text": text, "stream": True, "speed": 0.25}
    until = time.monotonic() + seconds
    with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=60) as answer:
        answer.raise_for_status()
        for _ in answer.iter_bytes(1000):
            most = max(most, resident_mb(server))
            if time.monotonic() > until:
                break
            time.sleep(0.1)
    return most - before


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--characters", type=int, default=4000)
    arguments.add_argument("--reader", type=float, default=10, help="seconds that the slow reader reads")
    given = arguments.parse_args()
    text = (SENTENCE * (given.characters // len(SENTENCE) + 1))[: given.characters]
    medians = []
    print(f"{'format':<6} {'over':<17} {'median':>7} {'worst':>7}  ms to the first audio")
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), rate_limit_generate=0) as server:
        for audio_format in MEDIA_TYPES:
            ways: dict[str, Ask] = {
                path: partial(over_http, server, path, text, audio_format) for path in FIELDS
            }
            ways["/ws/generate"] = partial(over_websocket, server, text, audio_format)
            for name, ask in ways.items():
                times = measure(server, ask, given.rounds)
                medians.append(statistics.median(times))
                print(f"{audio_format:<6} {name:<17} {medians[-1]:7.1f} {max(times):7.1f}", flush=True)
        print(f"slow reader: {growth_mb(server, text, given.reader):+.1f} MB while it reads")
    return int(max(medians) > TARGET_MS)


if __name__ == "__main__":
    sys.exit(main())
