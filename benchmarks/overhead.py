"""Server overhead of one short preview request: total time minus synthesis and encoding.

    python -m benchmarks.overhead [--requests 300]

Client and server are threads of one process, so that each request's parts can be measured. Prints medians and
exits with status 1 if the overhead's median is 5 ms or more.
"""

import argparse
import asyncio
import http.client
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from granian.constants import Interfaces
from granian.server.embed import Server

from dia_server.app import create_app
from dia_server.engine import preview
from dia_server.engine.engine import Engine
from dia_server.engine.types import Model
from dia_server.services.speech.encoding import SpeechFile
from dia_server.settings import Settings

PORT = 17860
BODY = json.dumps({"text": "Hello, world!"})

Times = dict[str, float]


class Clock:
    """Sums the milliseconds that a request spends in each part."""

    def __init__(self) -> None:
        self.times: Times = {}

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any) -> Any:
            started = time.perf_counter()
            result = call(*args)
            self.times[part] = self.times.get(part, 0) + (time.perf_counter() - started) * 1000
            return result

        return measured


def preview_engine(clock: Clock) -> Engine:
    def load(report: Callable[[float], None]) -> Model:
        model = preview.load(16)(report)
        model.step = clock.timed("synthesis", model.step)  # type: ignore[method-assign]
        return model

    return Engine("preview", load, max_waiting=16)


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: str | None) -> float:
    """Send a request and return the milliseconds until its whole response has arrived."""
    started = time.perf_counter()
    connection.request(method, path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
    return (time.perf_counter() - started) * 1000


def listens() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def measure(count: int, clock: Clock) -> list[Times]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    requests = []
    for number in range(count + 10):
        clock.times = {}
        whole = ask(connection, "POST", "/generate", BODY)
        times = clock.times | {"POST /generate": whole, "overhead": whole - sum(clock.times.values())}
        times["GET /health"] = ask(connection, "GET", "/health", None)
        if number >= 10:  # the first ones fill caches
            requests.append(times)
    return requests


async def run(count: int) -> list[Times]:
    clock = Clock()
    for part in ("_push", "_finish"):
        setattr(SpeechFile, part, clock.timed("encoding", getattr(SpeechFile, part)))
    with tempfile.TemporaryDirectory() as folder:
        conf = Settings(data_dir=folder, rate_limit_generate=0, log_level="warning")
        engine = preview_engine(clock)
        app = create_app(conf, engine)
        server = Server(app, port=PORT, interface=Interfaces.ASGI, log_enabled=False)
        serving = asyncio.create_task(server.serve())
        async with asyncio.timeout(10):
            while not (engine.ready and listens()):  # noqa: ASYNC110 - another thread and the kernel know
                await asyncio.sleep(0.1)
        try:
            return await asyncio.to_thread(measure, count, clock)
        finally:
            server.stop()  # type: ignore[no-untyped-call]
            await serving


def main() -> int:
    arguments = argparse.ArgumentParser(description="Server overhead of one short preview request")
    arguments.add_argument("--requests", type=int, default=300)
    requests = asyncio.run(run(arguments.parse_args().requests))
    medians = {part: statistics.median(times[part] for times in requests) for part in requests[0]}
    for part, median in medians.items():
        print(f"{part:16} {median:7.2f} ms")
    print(
        "(overhead is POST /generate minus synthesis and encoding; GET /health is HTTP and middleware alone)"
    )
    return int(medians["overhead"] >= 5)


if __name__ == "__main__":
    sys.exit(main())
