"""Memory of a server under mixed load with many disconnects.

    python -m benchmarks.soak [--minutes 10] [--idle-minutes 2] [--rate 1.0]

Uses the preview engine. Each kind of traffic has its own rate, which two cores can sustain; `--rate` scales
all rates. Prints the resident memory of the server's processes after the first minute, at the end, and after
the idle minutes. Exits with status 1 if one of the last two exceeds the first by more than 15 %, a response
had an unexpected status, or the log contains a traceback.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from dia_server.units import MIB
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.memory import resident_of
from tests.recordings import wav_file

FORMATS = ["wav", "mp3", "opus", "aac", "flac", "pcm"]
SHORT = "Hello, world!"
LONG = "A longer paragraph keeps the engine busy for a while. " * 12
"""40 s of speech; most clients read only its beginning."""
MEDIUM = LONG[: len(LONG) // 4]
MAX_GROWTH = 0.15
"""Maximum growth of memory, as a share of its size after the first minute."""
TAKEN = 3000
"""Bytes of a stream that a client reads before it disconnects."""
WARM_UP_S = 60

WRONG: list[tuple[str, str, bytes, int]] = [
    ("POST", "/generate", b"{", 400),
    ("POST", "/generate", json.dumps({"text": SHORT, "response_format": "midi"}).encode(), 422),
    ("POST", "/generate", json.dumps({"text": SHORT, "voice_id": "absent"}).encode(), 404),
    ("POST", "/generate", json.dumps({"text": "x" * 100_000}).encode(), 422),
    ("GET", "/jobs/absent", b"", 404),
    ("GET", "/absent", b"", 404),
    ("PUT", "/generate", b"{}", 405),
]
"""Invalid requests, with the expected status."""


@dataclass
class Load:
    server: Server
    session: httpx.AsyncClient
    recording: bytes
    done: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def check(self, kind: str, status: int, expected: int = 200) -> None:
        if status != expected:
            self.failures[f"{kind}: {status}"] += 1

    async def whole(self, number: int) -> None:
        body = {"text": SHORT, "response_format": FORMATS[number % 6], "stream": number % 2 > 0}
        self.check("whole", (await self.session.post("/generate", json=body)).status_code)

    async def medium(self, number: int) -> None:
        body = {"text": MEDIUM, "response_format": FORMATS[number % 6], "speed": (1.0, 1.3)[number % 2]}
        self.check("medium", (await self.session.post("/generate", json=body)).status_code)

    async def broken_off(self, number: int) -> None:
        audio_format = FORMATS[number % 6]
        if number % 3:
            path, body = "/generate", {"text": LONG, "stream": True, "response_format": audio_format}
        else:
            path, body = "/v1/audio/speech", {"input": LONG, "stream_format": "sse"}
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        await reader.readexactly(TAKEN if number % 4 else 1)
        writer.transport.abort()

    async def left_early(self, number: int) -> None:
        """Disconnect before the response begins."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        data = json.dumps({"text": LONG, "response_format": FORMATS[number % 6]}).encode()
        head = "POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async def events(self, number: int) -> None:
        body = {"input": SHORT, "stream_format": "sse", "response_format": FORMATS[number % 6]}
        self.check("events", (await self.session.post("/v1/audio/speech", json=body)).status_code)

    async def socket(self, number: int) -> None:
        await asyncio.to_thread(self._socket, number)

    def _socket(self, number: int) -> None:
        """Stream over a WebSocket; odd numbers disconnect in the middle."""
        with WebSocketClient(self.server.port, "/ws/generate", timeout_s=120) as client:
            client.send({"type": "generate", "data": {"text": MEDIUM, "stream": True}})
            while (message := client.receive()) is not None:
                if isinstance(message, bytes) and number % 2:
                    return
                if isinstance(message, dict) and message["type"] == "complete":
                    return

    async def upload(self, number: int) -> None:
        prompt_id = f"soak{number}"
        answer = await self.session.post(
            "/audio_prompts/upload",
            files={"audio_file": ("voice.wav", self.recording)},
            data={"prompt_id": prompt_id},
        )
        self.check("upload", answer.status_code)
        self.check("upload", (await self.session.delete(f"/audio_prompts/{prompt_id}")).status_code)

    async def job(self, number: int) -> None:
        body = {"text": SHORT, "response_format": FORMATS[number % 6]}
        answer = await self.session.post("/generate", json=body, params={"async_mode": "true"})
        self.check("job", answer.status_code)
        path = f"/jobs/{answer.json()['job_id']}"
        # the server is another process: there is no event to wait for
        while (await self.session.get(path)).json()["status"] in ("pending", "processing"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        self.check("job", (await self.session.get(f"{path}/result")).status_code)
        self.check("job", (await self.session.delete(path)).status_code)

    async def wrong(self, number: int) -> None:
        method, path, body, expected = WRONG[number % len(WRONG)]
        headers = {"Content-Type": "application/json"}
        answer = await self.session.request(method, path, content=body, headers=headers)
        self.check(f"wrong {method} {path} {body[:40]!r}", answer.status_code, expected)

    async def page(self, number: int) -> None:
        path = ("/health", "/stats", "/metrics", "/voices", "/jobs", "/")[number % 6]
        self.check(path, (await self.session.get(path)).status_code)

    async def repeat(self, kind: Callable[[int], Awaitable[None]], per_second: float, until: float) -> None:
        """Call `kind` `per_second` times per second, or back to back if it takes longer."""
        for number in itertools.count():
            started = time.monotonic()
            if started >= until:
                return
            try:
                await kind(number)
            except Exception as error:  # noqa: BLE001 - counted, and the load goes on
                self.failures[f"{kind.__name__}: {error!r}"] += 1
            self.done[kind.__name__] += 1
            await asyncio.sleep(max(0.0, started + 1 / per_second - time.monotonic()))

    async def run(self, seconds: float, rate: float) -> None:
        until = time.monotonic() + seconds
        rates: list[tuple[Callable[[int], Awaitable[None]], float]] = [
            (self.whole, 2.0),
            (self.medium, 0.3),
            *[(self.broken_off, 2.5)] * 4,
            (self.left_early, 2.0),
            (self.events, 0.5),
            (self.socket, 0.5),
            (self.upload, 0.3),
            (self.job, 0.5),
            (self.wrong, 3.0),
            (self.page, 2.0),
        ]
        async with asyncio.TaskGroup() as group:
            for kind, per_second in rates:
                group.create_task(self.repeat(kind, per_second * rate, until))


async def soak(server: Server, minutes: float, idle_minutes: float, rate: float) -> tuple[Load, list[float]]:
    """Load `server`; return the counts and its memory in MiB after warm-up, load and idle time."""
    assert server.process is not None
    measured = []
    limits = httpx.Limits(max_keepalive_connections=4)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as session:
        load = Load(server, session, wav_file(8.0))
        for seconds in (WARM_UP_S, minutes * 60 - WARM_UP_S):
            await load.run(seconds, rate)
            measured.append(resident_of(server.process.pid) / MIB)
            print(f"  {measured[-1]:.1f} MiB, {load.done.total()} requests", flush=True)
    await asyncio.sleep(idle_minutes * 60)
    measured.append(resident_of(server.process.pid) / MIB)
    return load, measured


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--idle-minutes", type=float, default=2)
    arguments.add_argument("--rate", type=float, default=1.0)
    given = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(
            Path(folder),
            rate_limit_generate=0,
            rate_limit_upload=0,
            rate_limit_jobs=0,
            auto_transcribe="false",
            log_level="warning",
        ) as server,
    ):
        load, (first, last, idle) = asyncio.run(soak(server, given.minutes, given.idle_minutes, given.rate))
        log = server.log
    growth = max(last, idle) / first - 1
    print(f"requests   {dict(load.done)}")
    print(f"failures   {dict(load.failures)}, {log.count('Traceback')} tracebacks in the log")
    print(f"memory     {first:.1f} MiB after {WARM_UP_S} s, {last:.1f} after {given.minutes:g} minutes")
    print(f"           {idle:.1f} after {given.idle_minutes:g} idle minutes; growth {growth:+.1%}")
    return int(growth > MAX_GROWTH or bool(load.failures) or "Traceback" in log)


if __name__ == "__main__":
    sys.exit(main())
