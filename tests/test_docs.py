"""Runs the documentation's examples against a server, and checks the paths and messages that pages name."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dia_server import errors
from dia_server.db.postgres import SESSION
from dia_server.web.errors import CODES
from tests.examples import Block, blocks, run
from tests.live import cloning_server, slow_server
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.recordings import wav_file

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "api.md"
PAGES = sorted(str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *API.parent.glob("*.md")])
ADDRESS = re.compile(r"(?:localhost|127\.0\.0\.1):7860")
CURL = """
curl() {
  [[ " $* " == *" --fail "* ]] || set -- --fail-with-body "$@"
  command curl --silent --show-error "$@"
}
"""
"""A curl that fails on status 400 and above, unless the example itself has --fail."""
NOT_DESCRIBED = {"GET /", "GET /docs", "GET /redoc", "GET /openapi.json", "WS /ws/generate"}
"""Routes on the page that the OpenAPI description lacks: pages and the WebSocket."""
ANCHORS = re.compile(r"/(?:candidates|anchor)\b")
"""Path of a route that needs Dia."""
MORE = "…"
"""Stands for omitted keys, list items, or parts of a string."""
ID = re.compile(r"\b[0-9a-f]{4}…")
"""A job's id, as examples shorten it."""
UNIX_TIME = 1_700_000_000
"""Numbers above this are moments in Unix seconds."""
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
VARIES = {
    *("duration", "generation_time", "progress", "size", "pitch"),  # differ with the test's own engine
    *("start", "end", "estimated"),  # differ with the test's own engine, which reports no words
    "word_errors",  # differs with the test's own Whisper
    *("model_loaded", "model_size", "device", "whisper_model_size"),  # differ with the test's own Whisper
    *("engine", "gpu_available", "gpu_count", "worker_count", "active_jobs", "uptime"),
    *("requests", "performance", "resources"),
}
"""Keys whose values are compared only by kind."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, whisper_folder: Path) -> Iterator[Server]:
    """Yield a server with Whisper that speaks slowly enough to be interrupted."""
    unlimited: Any = dict.fromkeys(["rate_limit_generate", "rate_limit_upload", "rate_limit_jobs"], 0)
    with Server(
        tmp_path_factory.mktemp("docs"),
        command=(sys.executable, slow_server.__file__, "serve"),
        whisper_model=whisper_folder,
        **unlimited,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def cloning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server with a fake Dia, for the examples that need one."""
    command = (sys.executable, cloning_server.__file__, "serve")
    with Server(tmp_path_factory.mktemp("cloning"), command=command) as server:
        yield server


class Reader:
    """Runs examples in one folder, and compares their output with the answers that the page shows."""

    def __init__(self, server: Server, folder: Path, cloning: Server | None = None) -> None:
        """Use `cloning` instead of `server` for examples with anchors and their candidates."""
        self._server = server
        self._cloning = cloning or server
        self._folder = folder
        self._job_id = "JOB_ID"
        """The id in the latest answer that had one."""
        self._candidate_id = "CANDIDATE_ID"
        """The id of the first candidate in the latest answer that had any."""
        for name in ("voice_sample.wav", "anna.wav"):
            (folder / name).write_bytes(wav_file(6.2))

    def read(self, examples: list[Block]) -> None:
        run: subprocess.CompletedProcess[str] | None = None
        for index, block in enumerate(examples):
            match block.language:
                case "bash" | "python" | "js":
                    run = self._run(block)
                    shown = examples[index + 1 : index + 2]
                    fails = bool(shown) and shown[0].language == "json" and '"error_code"' in shown[0].text
                    assert (run.returncode != 0) == fails, f"{block}: {run.stdout}{run.stderr}"
                case "json":
                    assert run is not None, f"{block} follows no program"
                    self._compare(block, run.stdout)
                case "text":
                    self._converse(block)
                case other:
                    raise AssertionError(f"{block}: {other!r} cannot be run")

    def _run(self, block: Block) -> subprocess.CompletedProcess[str]:
        server = self._cloning if ANCHORS.search(block.text) else self._server
        text = ADDRESS.sub(f"127.0.0.1:{server.port}", block.text).replace("JOB_ID", self._job_id)
        text = text.replace("CANDIDATE_ID", self._candidate_id)
        return run(block.language, CURL + text if block.language == "bash" else text, self._folder)

    def _compare(self, block: Block, output: str) -> None:
        """Assert that `output` ends with an answer like the one shown in `block`."""
        answer = json.loads(last_json(output))
        shown = json.loads(block.text)
        assert_alike(shown, answer, str(block))
        if isinstance(answer, dict):
            self._job_id = answer.get("job_id", self._job_id)
            for candidate in answer.get("candidates", [])[:1]:
                self._candidate_id = candidate["candidate_id"]

    def _converse(self, block: Block) -> None:
        """Send the messages after `>`, and wait for those after `<`."""
        with WebSocketClient(self._server.port, "/ws/generate") as socket:
            job_id = ""
            for direction, message in (line.split(" ", 1) for line in block.text.splitlines()):
                shown = json.loads(message)
                if direction == ">":
                    socket.send(shown | {"job_id": job_id} if "job_id" in shown else shown)
                    continue
                answer = self._next(socket, shown)
                assert_alike(shown, answer, f"{block}: {shown['type']}")
                job_id = answer.get("job_id", job_id)
                if shown["type"] == "audio":
                    assert len(socket.receive()) == answer["size"]

    @staticmethod
    def _next(socket: WebSocketClient, shown: Any) -> Any:
        """Return the next message of the kind of `shown`; skip other progress and audio."""
        while True:
            answer = socket.receive()
            if isinstance(answer, bytes):
                continue
            if all(answer.get(key) == shown.get(key) for key in ("type", "stage", "error_code")):
                return answer
            assert answer["type"] in {"progress", "audio"}, answer


def last_json(output: str) -> str:
    """Return the last of several JSON values that were printed one after the other."""
    decoder, start = json.JSONDecoder(), 0
    while True:
        _, end = decoder.raw_decode(output, start)
        if not output[end:].strip():
            return output[start:]
        start = end


def assert_alike(shown: Any, answer: Any, where: str) -> None:
    """Assert that `answer` equals `shown`, except for VARIES and what MORE leaves out."""
    match shown:
        case dict():
            keys = shown.keys() - {MORE}
            assert keys <= answer.keys() if MORE in shown else keys == answer.keys(), where
            for key in keys - VARIES:
                assert_alike(shown[key], answer[key], f"{where}: {key}")
            for key in keys & VARIES:
                assert_of_a_kind(shown[key], answer[key], f"{where}: {key}")
        case str() if shown == MORE:
            pass
        case list():
            assert isinstance(answer, list), where
            items = [item for item in shown if item != MORE]
            assert len(items) <= len(answer) if MORE in shown else len(items) == len(answer), where
            for one, other in zip(items, answer, strict=False):
                assert_alike(one, other, where)
        case int() if shown > UNIX_TIME:
            assert isinstance(answer, int), where
            assert answer > UNIX_TIME, where
        case float():
            assert answer == pytest.approx(shown, abs=0.01), where
        case str() if MOMENT.fullmatch(shown):
            assert MOMENT.fullmatch(answer), f"{where}: {answer}"
        case str():
            parts = ".*".join(map(re.escape, ID.sub(MORE, shown).split(MORE)))
            assert isinstance(answer, str), f"{where}: {answer}"
            assert re.fullmatch(parts, answer), f"{where}: {answer}"
        case _:
            assert shown == answer, f"{where}: {answer}"


def assert_of_a_kind(shown: Any, answer: Any, where: str) -> None:
    """Assert that `answer` has the types and keys of `shown`, recursively."""
    assert isinstance(answer, dict) == isinstance(shown, dict), where
    assert isinstance(answer, list) == isinstance(shown, list), where
    if isinstance(shown, dict):
        assert shown.keys() == answer.keys(), where
        for key in shown:
            assert_of_a_kind(shown[key], answer[key], f"{where}: {key}")


def operations(server: Server) -> set[str]:
    """Return the operations of the OpenAPI description, such as "GET /voices"."""
    paths = server.get("/openapi.json").json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def called(server: Server) -> set[str]:
    """Return the operations answered with 2xx since the server was started."""
    sample = re.compile(r'dia_http_requests_total\{method="(\w+)",route="([^"]+)",status="2\d\d"\}')
    return {f"{method} {route}" for method, route in sample.findall(server.get("/metrics").text)}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_page_of_the_api_has_a_working_example_of_every_route(
    server: Server, cloning: Server, tmp_path: Path
) -> None:
    Reader(server, tmp_path, cloning).read(blocks(API))

    assert operations(server) <= called(server) | called(cloning)
    for name, beginning in {
        "speech.wav": b"RIFF",
        "openai.wav": b"RIFF",
        "hello.mp3": b"\xff\xfb",
        "me.wav": b"RIFF",
        "my_voice.wav": b"RIFF",
        "result.wav": b"RIFF",
        "candidate.wav": b"RIFF",
        "events.txt": b'data: {"type":"speech.audio.delta"',
    }.items():
        assert (tmp_path / name).read_bytes().startswith(beginning), name


def test_the_page_of_the_api_names_every_route_and_no_other(server: Server) -> None:
    named = set(re.findall(r"`((?:GET|POST|PUT|DELETE|WS) /[^`?]*)(?:\?[^`]*)?`", API.read_text()))

    assert named == operations(server) | NOT_DESCRIBED


def test_the_page_of_the_api_names_every_error() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", API.read_text(), re.MULTILINE)

    assert {(int(status), code) for status, code in rows} == {
        *((failure.status, failure.code) for failure in failures(errors.ServerError)),
        *CODES.items(),
    }


def failures(base: type[errors.ServerError]) -> Iterator[type[errors.ServerError]]:
    """Yield `base` and its subclasses in errors.py."""
    yield base
    for failure in base.__subclasses__():
        if failure.__module__ == errors.__name__:
            yield from failures(failure)


@pytest.mark.parametrize("page", ["README.md", "docs/clients.md", "docs/voices.md"])
def test_the_examples_of_other_pages_work(server: Server, tmp_path: Path, page: str) -> None:
    examples = [
        block
        for block in blocks(ROOT / page)
        if block.language == "python" or (block.language == "bash" and "curl" in block.text)
    ]
    assert examples

    Reader(server, tmp_path).read(examples)


@pytest.mark.parametrize("page", PAGES)
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    file = ROOT / page
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", file.read_text()):
        linked = (file.parent / target) if target else file
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
            }


PATH = re.compile(
    r"`((?:[\w.-]+/)+|(?:[\w.-]+/)*[\w-]+\.(?:py|js|html|css|md|toml|yaml|yml|conf|ini|service|txt))`"
)
"""A folder or a file of the project in backticks."""
DATA = {"anchors/", "audio_prompts/", "audio_outputs/", "cache/", "candidates/", "outputs/", "references/"}
"""Folders that the server makes in its data folder or in its storage."""
HOMES = (ROOT, ROOT / "src" / "dia_server", ROOT / "src" / "dia_server" / "web" / "static" / "studio" / "js")
"""Folders that the paths on the pages start from."""


@pytest.mark.parametrize("page", PAGES)
def test_files_tests_and_commands_on_a_page_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))

    files = {*PATH.findall(text), *re.findall(r"\btests/[\w/]+\.py\b", text)} - DATA
    files |= {
        module.replace(".", "/") + ".py" for module in re.findall(r"-m ((?:benchmarks|docs)\.\w+)", text)
    }
    assert {file for file in files if not any((home / file).exists() for home in HOMES)} == set()

    functions = set(re.findall(r"\btest_\w+\b(?!\.py)", text))
    assert {name for name in functions if f"def {name}(" not in tests} == set()

    targets = set(re.findall(r"`make ([a-z-]+)`", text))
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_page_of_several_servers_replaces_every_session_parameter() -> None:
    page = (API.parent / "cluster.md").read_text()

    assert dict(re.findall(r"ALTER ROLE dia SET (\w+) = '?(\w+)'?;", page)) == SESSION


def test_the_troubleshooting_page_quotes_messages_of_the_source() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    firsts = re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
    said = [span for first in firsts for span in re.findall(r"`([^`]* [^`]*)`", first)]
    said = [message for message in said if not message.startswith("X-Engine")]
    texts = list(server_texts())

    assert len(said) > 30
    for message in said:
        parts = [part for part in message.split(MORE) if part.strip()]
        assert any(all(part in text for part in parts) for text in texts), message


def server_texts() -> Iterator[str]:
    """Yield every string of the source; "…" stands for its variable parts."""
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else MORE for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
