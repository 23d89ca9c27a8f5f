"""Time to first audio of a short request, alone and while another address has long texts running.

    python -m benchmarks.fairness [--rounds 15] [--texts 16] [--stream]

Starts a server with the preview engine. 127.0.0.2 keeps `--texts` requests of 4,000 characters running, as
whole responses or streams; 127.0.0.1 repeatedly streams one short sentence. Exits with status 1 if the median
under load is more than 3 times the median alone.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.live.server import Server

LIMIT = 3.0
"""Maximum ratio of the two medians."""
CROWD, BYSTANDER = "127.0.0.2", "127.0.0.1"
SHORT = {"text": "Hello there, can you hear me?", "stream": True, "response_format": "mp3"}
LONG = "The quick brown fox jumps over the lazy dog, and runs away into the dark and silent wood. "
LONG_CHARACTERS = 4_000
SETTLE_S = 1.5
"""Seconds that the long texts run before the measurement."""
PAUSE_S = 0.2
"""Seconds between two short requests."""


async def post(port: int, address: str, body: object) -> tuple[float, int]:
    """Return the seconds to the first 16 bytes of audio, and the bytes of audio."""
    content = json.dumps(body).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(head.encode() + content)
        headers = await reader.readuntil(b"\r\n\r\n")
        if not headers.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(headers.decode())
        first, size = await reader.readexactly(16), 16
        first_s = time.perf_counter() - started
        assert first
        while chunk := await reader.read(1 << 16):
            size += len(chunk)
        return first_s, size
    finally:
        writer.close()


async def crowd(port: int, number: int, *, stream: bool) -> None:
    text = (f"Text number {number}. " + LONG * (LONG_CHARACTERS // len(LONG) + 1))[:LONG_CHARACTERS]
    while True:
        await post(port, CROWD, {"text": text, "stream": stream})


async def first_audio(port: int, rounds: int) -> list[float]:
    """Return the milliseconds to first audio of each round."""
    found = []
    for _ in range(rounds):
        first_s, _ = await post(port, BYSTANDER, SHORT)
        found.append(1000 * first_s)
        await asyncio.sleep(PAUSE_S)
    return found


async def measure(port: int, rounds: int, texts: int, *, stream: bool) -> tuple[list[float], list[float]]:
    await first_audio(port, 3)  # warms up
    alone = await first_audio(port, rounds)
    tasks = [asyncio.create_task(crowd(port, number, stream=stream)) for number in range(texts)]
    await asyncio.sleep(SETTLE_S)
    loaded = await first_audio(port, rounds)
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return alone, loaded


def describe(name: str, times: list[float]) -> str:
    median, most = statistics.median(times), max(times)
    return f"{name:<7} median {median:6.1f} ms, least {min(times):6.1f}, most {most:7.1f} ({len(times)})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--stream", action="store_true", help="have the long texts streamed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), rate_limit_generate=0) as server:
        alone, loaded = asyncio.run(measure(server.port, given.rounds, given.texts, stream=given.stream))
    ratio = statistics.median(loaded) / statistics.median(alone)
    print(describe("alone", alone))
    print(describe("loaded", loaded))
    print(f"ratio   {ratio:.1f}, limit {LIMIT:.1f}")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
