"""`dia-server bench`: puts a short load on a running server and prints the results as a table.

The times are those of a client, from opening the connection to the last byte read. Only the standard library
is used, so that the benchmark runs wherever the server does.
"""

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

TEXT = "[S1] Did you hear that? [S2] Hear what? [S1] Never mind. (laughs) It must have been the wind."
HEADINGS = ("first p50", "first p95", "total p50", "total p95")
PCM_BYTES_S = 24_000 * 2
"""Bytes per second of audio in the format `pcm`: 16-bit mono at 24 kHz."""
TIMEOUT_S = 600.0
START_S = 600.0
"""Maximum seconds for the server that `own_server` runs to start and load its model."""


class BenchError(Exception):
    """The benchmark cannot run; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Sample:
    first_s: float
    """Seconds from opening the connection to the first byte of audio."""
    total_s: float
    audio_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """Results of `clients` concurrent clients, each of which sends its next request after the response."""

    clients: int
    samples: Sequence[Sample]
    failures: Sequence[str]
    wall_s: float


def measure(url: str, clients: int, requests: int, *, voice: str, text: str, key: str) -> Round:
    """Send `requests` requests in total, at most `clients` of them at a time."""
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(lambda _: _ask(url, voice, text, key), range(requests)))
    return Round(
        clients,
        [result for result in results if isinstance(result, Sample)],
        [result for result in results if isinstance(result, str)],
        time.perf_counter() - started,
    )


def describe(url: str, key: str) -> str:
    """Return one line that names the server and its engine; raises BenchError if it is not ready."""
    try:
        status, health = _get(url, "/health", key)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BenchError(f"No dia-server answers at {url}: {error}") from None
    if status != 200 or not health.get("model_loaded"):
        raise BenchError(f"The server at {url} is not ready: {health.get('error') or health.get('status')}")
    return f"dia-server {health.get('version')} at {url}, engine {health.get('engine')}"


def table(rounds: Sequence[Round]) -> Iterator[str]:
    """Yield the lines of a table: times in milliseconds, throughput in seconds of audio per second."""
    columns = "{:>7} {:>8} {:>6} {:>10} {:>10} {:>10} {:>10} {:>11}"
    yield columns.format("clients", "requests", "failed", *HEADINGS, "x real time")
    for r in rounds:
        first, total = [s.first_s for s in r.samples], [s.total_s for s in r.samples]
        yield columns.format(
            r.clients,
            len(r.samples) + len(r.failures),
            len(r.failures),
            *(_ms(values, share) for values in (first, total) for share in (0.5, 0.95)),
            f"{sum(s.audio_s for s in r.samples) / r.wall_s:.1f}",
        )


@contextmanager
def own_server(port: int) -> Iterator[str]:
    """Run a server with this process's settings, but in a temporary folder; yields its URL.

    Generations are not rate-limited. An empty database URL selects a new database in the folder. With the
    operator's database, the server would mark completed jobs as failed, because their files are not in the
    folder.
    """
    with tempfile.TemporaryDirectory(prefix="dia-bench-") as folder:
        flags = {
            "host": "127.0.0.1",
            "port": port,
            "data-dir": folder,
            "database-url": "",
            "rate-limit-generate": 0,
        }
        command = [sys.executable, "-m", "dia_server", "serve", "--log-level", "error"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_loaded(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait_until_loaded(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            _, health = _get(url, "/health", "")
        except (OSError, http.client.HTTPException, ValueError):
            health = {}
        if health.get("model_loaded"):
            return
        if cause := health.get("error"):
            raise BenchError(f"The model could not be loaded: {cause}")
        time.sleep(0.1)
    raise BenchError(f"The server did not start:\n{log.read_text(errors='replace')}")


def _ask(url: str, voice: str, text: str, key: str) -> Sample | str:
    """Request speech for `text`; return the measured times, or a text that describes the failure."""
    body = {"model": "dia", "input": text, "voice": voice, "response_format": "pcm", "stream": True}
    started = time.perf_counter()
    connection = _connect(url)
    try:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        connection.request("POST", _path(url, "/v1/audio/speech"), json.dumps(body), headers)
        answer = connection.getresponse()
        first_byte = answer.read(1)
        first_s = time.perf_counter() - started
        remainder = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if answer.status != 200:
        return f"{answer.status} {(first_byte + remainder).decode(errors='replace')[:200]}"
    return Sample(first_s, time.perf_counter() - started, (1 + len(remainder)) / PCM_BYTES_S)


def _get(url: str, path: str, key: str) -> tuple[int, dict[str, object]]:
    connection = _connect(url)
    try:
        connection.request("GET", _path(url, path), headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        decoded = json.loads(answer.read())
        return answer.status, decoded if isinstance(decoded, dict) else {}
    finally:
        connection.close()


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.netloc, timeout=TIMEOUT_S)


def _path(url: str, path: str) -> str:
    return urlsplit(url).path.rstrip("/") + path


def _ms(values: Sequence[float], share: float) -> str:
    return f"{sorted(values)[int(share * (len(values) - 1))] * 1000:.0f}" if values else "-"
