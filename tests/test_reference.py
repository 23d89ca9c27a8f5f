"""Runs every example of the API reference against a server.

`api-reference.md` is the reference as it was given, with another port. Each of its fenced blocks has a check,
found by the heading and label above the block; a block without a check fails.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.examples import Block, blocks, run
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.recordings import wav_file

REFERENCE = Path(__file__).with_name("api-reference.md")
PORT = "7860"


@dataclass(frozen=True)
class Example:
    block: Block
    heading: str
    """The last heading above the block."""
    label: str
    """The last bold words between the heading and the block; empty if there are none."""

    def __str__(self) -> str:
        return f"line {self.block.line}, {self.heading}: {self.label}"

    @property
    def json(self) -> Any:
        return json.loads(self.block.text)


def find(block: Block) -> Example:
    above = block.page.read_text().splitlines()[: block.line - 1]
    at = max(i for i, line in enumerate(above) if re.match(r"#+ \S", line))
    labels = [found[1] for line in above[at:] if (found := re.match(r"\*\*([^*]+):\*\*", line))]
    return Example(block, above[at].lstrip("# ").replace("`", ""), (labels or [""])[-1])


EXAMPLES = [find(block) for block in blocks(REFERENCE)]


@dataclass(frozen=True)
class Desk:
    """A server, and a folder with the recordings that the examples name."""

    server: Server
    folder: Path

    def paste(self, example: Example, more: str = "") -> str:
        """Run the example's program followed by `more`; return its output."""
        text = example.block.text.replace(PORT, str(self.server.port)) + more
        ended = run(example.block.language, text, self.folder)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(method, self.server.url + path, json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def upload(self, prompt_id: str = "my_voice") -> Any:
        with (self.folder / "voice_sample.wav").open("rb") as file:
            answer = requests.post(
                f"{self.server.url}/audio_prompts/upload",
                data={"prompt_id": prompt_id},
                files={"audio_file": file},
                timeout=30,
            )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def finished_job(self, text: str = "Hello, world!") -> Any:
        job_id = self.call("POST", "/generate?async_mode=true", {"text": text})["job_id"]
        deadline = time.monotonic() + 30
        while (job := self.call("GET", f"/jobs/{job_id}"))["status"] in {"pending", "processing"}:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return job


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, whisper_folder: Path) -> Iterator[Server]:
    """Yield a server with Whisper and without rate limits."""
    unlimited: Any = dict.fromkeys(["rate_limit_generate", "rate_limit_upload", "rate_limit_jobs"], 0)
    with Server(tmp_path_factory.mktemp("reference"), whisper_model=whisper_folder, **unlimited) as server:
        yield server


@pytest.fixture
def desk(server: Server, tmp_path: Path) -> Desk:
    for name in ("voice_sample.wav", "sample.wav"):
        (tmp_path / name).write_bytes(wav_file(3.45))
    return Desk(server, tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_example_holds(desk: Desk, example: Example) -> None:
    if example.block.language == "javascript" and shutil.which("node") is None:
        pytest.skip("needs Node.js")
    CHECKS[example.heading, example.label](desk, example)


def test_every_check_has_its_example() -> None:
    assert {(example.heading, example.label) for example in EXAMPLES} == CHECKS.keys()


def assert_shaped(shown: Any, answer: Any, where: str = "") -> None:
    """Assert that `answer` has the fields of `shown` with their types, recursively; others are allowed."""
    match shown:
        case dict():
            assert shown.keys() <= answer.keys(), where
            for key in shown:
                assert_shaped(shown[key], answer[key], f"{where} {key}")
        case list():
            assert isinstance(answer, list), where
            for item in answer:
                assert_shaped(shown[0], item, where)
        case bool() | str() | None:
            assert type(answer) is type(shown), where
        case _:
            assert type(answer) in {int, float}, where


def is_wav(content: bytes) -> bool:
    return content[:4] == b"RIFF" and content[8:12] == b"WAVE" and len(content) > 10_000


def base_url(desk: Desk, example: Example) -> None:
    address = example.block.text.strip().replace(PORT, str(desk.server.port))
    assert requests.get(f"{address}/docs", timeout=10).status_code == 200
    assert requests.get(f"{address}/redoc", timeout=10).status_code == 200


def answered_with_audio(path: str) -> Callable[[Desk, Example], None]:
    """Return a check that posts the example's body to `path` and expects audio."""

    def check(desk: Desk, example: Example) -> None:
        answer = requests.post(desk.server.url + path, json=example.json, timeout=30)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
        assert is_wav(answer.content)

    return check


def saved(*names: str) -> Callable[[Desk, Example], None]:
    """Return a check that runs the example's program and expects it to write these WAV files."""

    def check(desk: Desk, example: Example) -> None:
        desk.paste(example)
        for name in names:
            assert is_wav((desk.folder / name).read_bytes()), name

    return check


def accepted(desk: Desk, example: Example) -> None:
    answer = desk.call("POST", "/generate?async_mode=true", {"text": "Hello!"})

    assert_shaped(example.json, answer)
    assert {**answer, "job_id": ""} == {**example.json, "job_id": ""}
    assert len(answer["job_id"]) == len(example.json["job_id"])


def pasted_job(desk: Desk, example: Example) -> None:
    job_id = json.loads(desk.paste(example))["job_id"]

    (listed,) = [job for job in desk.call("GET", "/jobs")["jobs"] if job["job_id"] == job_id]
    assert listed["text_preview"] == "Hello, async world!"


def voices(desk: Desk, example: Example) -> None:
    listed = desk.call("GET", "/voices")

    # the example shows no preview, which was true of the reference
    assert [voice | {"preview_url": None} for voice in listed["voices"][:2]] == example.json["voices"]
    for voice in listed["voices"]:
        assert is_wav(requests.get(desk.server.url + voice["preview_url"], timeout=30).content)


def pasted_voices(desk: Desk, example: Example) -> None:
    assert json.loads(desk.paste(example)) == desk.call("GET", "/voices")


def mappings(desk: Desk, example: Example) -> None:
    desk.call("POST", "/voice_mappings", {"voice_id": "custom_voice", **example.json["custom_voice"]})

    found = desk.call("GET", "/voice_mappings")

    for name, shown in example.json.items():
        assert found[name].items() >= shown.items()


def mapping(desk: Desk, example: Example) -> None:
    assert desk.call("POST", "/voice_mappings", example.json).items() >= example.json.items()
    kept = desk.call("GET", "/voice_mappings")["custom_voice"]
    assert {"voice_id": "custom_voice", **kept}.items() >= example.json.items()


def deleted_mapping(desk: Desk, example: Example) -> None:
    desk.call("POST", "/voice_mappings", {"voice_id": "custom_voice"})
    desk.paste(example)
    assert "custom_voice" not in desk.call("GET", "/voice_mappings")


def pasted_upload(desk: Desk, example: Example) -> None:
    answer = json.loads(desk.paste(example))
    assert answer.items() <= {**answer, **desk.call("GET", "/audio_prompts/metadata/my_voice")}.items()


def uploaded(desk: Desk, example: Example) -> None:
    answer = desk.upload()

    assert_shaped(example.json, answer)
    assert {**answer, "transcript": example.json["transcript"]}.items() >= example.json.items()


def prompts(desk: Desk, example: Example) -> None:
    desk.upload()

    listed = desk.call("GET", "/audio_prompts")

    assert_shaped(example.json, listed)
    assert example.json["audio_prompts"][0] in listed["audio_prompts"]


def metadata(desk: Desk, example: Example) -> None:
    desk.upload()

    listed = desk.call("GET", "/audio_prompts/metadata")

    (shown,) = example.json["audio_prompts"]
    one = desk.call("GET", "/audio_prompts/metadata/my_voice")
    assert one in listed["audio_prompts"]
    assert_shaped(shown, one)
    said = {"transcript", "file_size", "created_at"}
    assert {**one, **dict.fromkeys(said)}.items() >= {**shown, **dict.fromkeys(said)}.items()


def deleted_prompt(desk: Desk, example: Example) -> None:
    desk.upload()
    desk.paste(example)
    assert "my_voice" not in str(desk.call("GET", "/audio_prompts"))


def discovery(desk: Desk, example: Example) -> None:
    recording = desk.server.data_dir / "audio_prompts" / "new_voice.wav"
    recording.write_bytes(wav_file(2.0))

    found = desk.call("POST", "/audio_prompts/discover", example.json)

    assert [prompt["prompt_id"] for prompt in found["discovered"]] == ["new_voice"]
    desk.call("DELETE", "/audio_prompts/new_voice")


def discovered(desk: Desk, example: Example) -> None:
    recording = desk.server.data_dir / "audio_prompts" / "new_voice.wav"
    recording.write_bytes(wav_file(2.0))

    found = desk.call("POST", "/audio_prompts/discover", {})

    assert_shaped(example.json, found)
    (shown,), (new,) = example.json["discovered"], found["discovered"]
    assert {**new, "transcript": ""}.items() >= {**shown, "transcript": ""}.items()
    assert (found["message"], found["total_prompts"]) == (
        example.json["message"],
        len(desk.call("GET", "/audio_prompts")["audio_prompts"]),
    )
    desk.call("DELETE", "/audio_prompts/new_voice")


def transcribed(desk: Desk, example: Example) -> None:
    desk.upload()

    answer = desk.call("POST", "/audio_prompts/my_voice/transcribe")

    assert_shaped(example.json, answer)
    assert {**answer, "transcript": ""}.items() >= {**example.json, "transcript": ""}.items()
    assert (desk.server.data_dir / answer["saved_to"]).read_text() == f"{answer['transcript']}\n"


def corrected(desk: Desk, example: Example) -> None:
    desk.upload()

    desk.call("PUT", "/audio_prompts/my_voice/transcript", example.json)

    now = desk.call("GET", "/audio_prompts/metadata/my_voice")
    assert (now["transcript"], now["transcript_source"]) == (example.json["transcript"], "manual")


def whisper_status(desk: Desk, example: Example) -> None:
    desk.call("POST", "/whisper/load")

    status = desk.call("GET", "/whisper/status")

    assert_shaped(example.json, status)
    for field in ("available", "model_loaded", "auto_transcribe"):
        assert status[field] == example.json[field]
    assert status["device"] in {"cuda", "cpu"}


def whisper_loaded(desk: Desk, example: Example) -> None:
    answer = desk.call("POST", "/whisper/load")

    assert answer.keys() == example.json.keys()
    assert answer["message"] == example.json["message"]
    assert answer["device"] in {"cuda", "cpu"}


def job(desk: Desk, example: Example) -> None:
    done = desk.finished_job()

    assert_shaped(example.json, done)
    assert (done["status"], done["result_url"]) == ("completed", f"/jobs/{done['job_id']}/result")
    assert is_wav(requests.get(desk.server.url + done["result_url"], timeout=10).content)
    assert desk.call("DELETE", f"/jobs/{done['job_id']}")
    assert requests.get(f"{desk.server.url}/jobs/{done['job_id']}", timeout=10).status_code == 404


def jobs(desk: Desk, example: Example) -> None:
    done = desk.finished_job()

    listed = desk.call("GET", "/jobs?status=completed&limit=1")

    assert_shaped(example.json, listed)
    (shown,), (newest,) = example.json["jobs"], listed["jobs"]
    assert {**shown, "job_id": done["job_id"], "created_at": done["created_at"]}.items() <= newest.items()


def health(desk: Desk, example: Example) -> None:
    found = desk.call("GET", "/health")

    assert_shaped(example.json, found)
    assert (found["status"], found["model_loaded"]) == ("healthy", True)
    assert found["gpu_available"] == (found["gpu_count"] > 0)
    assert re.fullmatch(r"(?:\d+h )?(?:\d+m )?\d+s", found["uptime"])


def configuration(desk: Desk, example: Example) -> None:
    found = desk.call("GET", "/config")

    assert_shaped(example.json, found)
    differs = {"save_outputs", "whisper_model_size", "worker_count"}  # as this server was started
    assert {**found, **dict.fromkeys(differs)}.items() >= {**example.json, **dict.fromkeys(differs)}.items()


def configured(desk: Desk, example: Example) -> None:
    before = desk.call("GET", "/config")

    after = desk.call("PUT", "/config", example.json)
    unshown = {name: after[name] for name in ("stored", "overridden")}
    assert after == before | example.json | unshown
    assert desk.call("GET", "/config") == after

    desk.call("PUT", "/config", {name: before[name] for name in example.json})


def stats(desk: Desk, example: Example) -> None:
    requests.post(f"{desk.server.url}/generate", json={"text": "Counted."}, timeout=10)

    found = desk.call("GET", "/stats")

    assert_shaped(example.json, found)
    assert found["requests"]["total"] >= found["requests"]["successful"] > 0
    assert found["performance"]["avg_generation_time"] > 0


def conversation(desk: Desk, *messages: Any) -> list[Any]:
    """Send `messages`; return what is received until each has been answered."""
    received: list[Any] = []
    with WebSocketClient(desk.server.port, "/ws/generate") as socket:
        for message in messages:
            socket.send(message)
        while sum(one["type"] in {"complete", "error"} for one in received) < len(messages):
            received.append(socket.receive())
    return received


def sent(desk: Desk, example: Example) -> None:
    *progress, complete = conversation(desk, example.json)

    assert complete["type"] == "complete"
    assert progress[0] == {
        "type": "progress",
        "job_id": complete["job_id"],
        "progress": 0,
        "stage": "queued",
    }
    assert is_wav(requests.get(desk.server.url + complete["audio_url"], timeout=10).content)


def received(desk: Desk, example: Example) -> None:
    without_comments = re.sub(r"^//.*$", ",", example.block.text, flags=re.MULTILINE)
    shown = {one["type"]: one for one in json.loads(f"[{without_comments.strip().lstrip(',')}]")}
    hello, nobody = ({"text": "Hello, world!", "voice_id": voice} for voice in ("aria", "nobody"))

    messages = conversation(desk, *({"type": "generate", "data": data} for data in (hello, nobody)))

    assert {message["type"] for message in messages} == shown.keys()
    for message in messages:
        assert_shaped(shown[message["type"]], message)
    (complete,) = [message for message in messages if message["type"] == "complete"]
    assert complete["audio_url"] == shown["complete"]["audio_url"].replace("12345", complete["job_id"])
    assert shown["progress"]["stage"] in {message.get("stage") for message in messages}


def failure(desk: Desk, example: Example) -> None:
    body = {"text": "Hello!", "voice_id": "nobody"}

    answer = requests.post(f"{desk.server.url}/generate", json=body, timeout=10)

    assert answer.status_code == 404
    assert answer.json().keys() - {"param", "limit"} == example.json.keys()
    assert_shaped(example.json, answer.json())
    assert answer.json()["error_code"] == example.json["error_code"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z", answer.json()["timestamp"])


def limits(desk: Desk, example: Example) -> None:
    shown = dict(line.split(": ") for line in example.block.text.splitlines())
    with Server(desk.folder, auto_transcribe="false") as limited:
        for _ in range(3):
            answer = requests.post(f"{limited.url}/generate", json={"text": "Hi."}, timeout=10)

    told = {name: int(answer.headers[name]) for name in shown}
    assert told["X-RateLimit-Limit"] == int(shown["X-RateLimit-Limit"])
    # more are left where a minute has begun meanwhile
    assert told["X-RateLimit-Remaining"] in range(int(shown["X-RateLimit-Remaining"]), 10)
    assert -60 < told["X-RateLimit-Reset"] - time.time() <= 60


def python_client(desk: Desk, example: Example) -> None:
    more = """
assert len(client.list_voices()["voices"]) >= 6
assert client.generate_speech("Hello!", response_format="mp3", speed=1.2)[:4] != b"RIFF"
print(client.upload_audio_prompt("by_python", "sample.wav")["prompt_id"])
"""
    assert desk.paste(example, more) == "by_python\n"
    assert is_wav((desk.folder / "output.wav").read_bytes())


def javascript_client(desk: Desk, example: Example) -> None:
    more = """
const { voices } = await client.listVoices();
console.log(new TextDecoder().decode(audio.slice(0, 4)), voices[0].voice_id);
"""
    assert desk.paste(example, more) == "RIFF aria\n"


def pasted_curls(desk: Desk, example: Example) -> None:
    """The last asks for a job that does not exist."""
    printed = desk.paste(example)

    assert is_wav((desk.folder / "speech.wav").read_bytes())
    for expected in ('"status":"pending"', '"prompt_id":"my_voice"', '"error_code":"NOT_FOUND"'):
        assert expected in printed


CHECKS: dict[tuple[str, str], Callable[[Desk, Example], None]] = {
    ("Base URL", ""): base_url,
    ("POST /generate", "Request Body"): answered_with_audio("/generate"),
    ("POST /generate", "Example"): saved("speech.wav"),
    ("POST /generate?async_mode=true", "Response"): accepted,
    ("POST /generate?async_mode=true", "Example"): pasted_job,
    ("POST /v1/audio/speech", "Request Body"): answered_with_audio("/v1/audio/speech"),
    ("POST /v1/audio/speech", "Example"): saved("openai_speech.wav"),
    ("GET /voices", "Response"): voices,
    ("GET /voices", "Example"): pasted_voices,
    ("GET /voice_mappings", "Response"): mappings,
    ("POST /voice_mappings", "Request Body"): mapping,
    ("DELETE /voice_mappings/{voice_id}", "Example"): deleted_mapping,
    ("POST /audio_prompts/upload", "Request (multipart/form-data)"): pasted_upload,
    ("POST /audio_prompts/upload", "Response"): uploaded,
    ("GET /audio_prompts", "Response"): prompts,
    ("GET /audio_prompts/metadata", "Response"): metadata,
    ("DELETE /audio_prompts/{prompt_id}", "Example"): deleted_prompt,
    ("POST /audio_prompts/discover", "Request Body"): discovery,
    ("POST /audio_prompts/discover", "Response"): discovered,
    ("POST /audio_prompts/{prompt_id}/transcribe", "Response"): transcribed,
    ("PUT /audio_prompts/{prompt_id}/transcript", "Request Body"): corrected,
    ("GET /whisper/status", "Response"): whisper_status,
    ("POST /whisper/load", "Response"): whisper_loaded,
    ("GET /jobs/{job_id}", "Response"): job,
    ("GET /jobs", "Response"): jobs,
    ("GET /health", "Response"): health,
    ("GET /config", "Response"): configuration,
    ("PUT /config", "Request Body"): configured,
    ("GET /stats", "Response"): stats,
    ("WS /ws/generate", "Message Format"): sent,
    ("WS /ws/generate", "Response Messages"): received,
    ("Standard Error Format", ""): failure,
    ("Headers", ""): limits,
    ("Python SDK Example", ""): python_client,
    ("JavaScript/Node.js Example", ""): javascript_client,
    ("cURL Examples", ""): pasted_curls,
}
