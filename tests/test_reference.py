"""The API reference's own examples, as a user would paste them, against a running server."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.live.server import Server
from tests.live.websocket import WebSocketClient

PORT = 7860
"""The reference's; only the port differs here."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("reference")
    unlimited: Any = dict.fromkeys(["rate_limit_generate", "rate_limit_upload", "rate_limit_jobs"], 0)
    with Server(folder, auto_transcribe="false", **unlimited) as server:
        yield server


class DiaTTSClient:
    """The reference's Python client."""

    def __init__(self, base_url: str = "http://localhost:7860") -> None:
        self.base_url = base_url

    def generate_speech(self, text: str, voice_id: str = "aria", **kwargs: Any) -> bytes:
        data = {"text": text, "voice_id": voice_id, **kwargs}
        response = requests.post(f"{self.base_url}/generate", json=data)
        return response.content

    def upload_audio_prompt(self, prompt_id: str, audio_file_path: str) -> Any:
        with open(audio_file_path, "rb") as f:
            files = {"audio_file": f}
            data = {"prompt_id": prompt_id}
            response = requests.post(f"{self.base_url}/audio_prompts/upload", files=files, data=data)
        return response.json()

    def list_voices(self) -> Any:
        response = requests.get(f"{self.base_url}/voices")
        return response.json()


JAVASCRIPT = """
class DiaTTSClient {
    constructor(baseUrl = 'http://localhost:7860') {
        this.baseUrl = baseUrl;
    }

    async generateSpeech(text, voiceId = 'aria', options = {}) {
        const response = await fetch(`${this.baseUrl}/generate`, {
            method: 'POST',
            headers: { 'Content-Type': 'application/json' },
            body: JSON.stringify({ text, voice_id: voiceId, ...options })
        });
        return response.arrayBuffer();
    }

    async listVoices() {
        const response = await fetch(`${this.baseUrl}/voices`);
        return response.json();
    }
}
"""

CURL = {
    "generate": """curl -X POST "http://localhost:7860/generate" \\
  -H "Content-Type: application/json" \\
  -d '{"text": "Hello, world!", "voice_id": "aria"}' \\
  --output speech.wav""",
    "openai": """curl -X POST "http://localhost:7860/v1/audio/speech" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "dia", "input": "Hello from SillyTavern!", "voice": "luna"}' \\
  --output openai_speech.wav""",
    "async": """curl -X POST "http://localhost:7860/generate?async_mode=true" \\
  -H "Content-Type: application/json" \\
  -d '{"text": "Hello, async world!", "voice_id": "aria"}'""",
    "upload": """curl -X POST "http://localhost:7860/audio_prompts/upload" \\
  -F "prompt_id=my_voice" \\
  -F "audio_file=@voice_sample.wav\"""",
    "delete prompt": 'curl -X DELETE "http://localhost:7860/audio_prompts/my_voice"',
    "job": 'curl "http://localhost:7860/jobs/12345678-1234-1234-1234-123456789abc"',
    "voices": 'curl "http://localhost:7860/voices"',
    "delete mapping": 'curl -X DELETE "http://localhost:7860/voice_mappings/custom_voice"',
}


def shell(server: Server, command: str, folder: Path) -> str:
    command = command.replace(f"localhost:{PORT}", f"127.0.0.1:{server.port}")
    run = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout


@pytest.mark.parametrize(("example", "file"), [("generate", "speech.wav"), ("openai", "openai_speech.wav")])
def test_the_curl_examples_write_audio(server: Server, tmp_path: Path, example: str, file: str) -> None:
    shell(server, CURL[example], tmp_path)

    assert (tmp_path / file).read_bytes()[:4] == b"RIFF"


def test_the_voices_are_listed(server: Server, tmp_path: Path) -> None:
    assert '{"name":"Aria","voice_id":"aria","preview_url":null}' in shell(server, CURL["voices"], tmp_path)


def test_the_mapping_examples(server: Server, tmp_path: Path) -> None:
    mapping = {
        "voice_id": "custom_voice",
        "style": "conversational",
        "primary_speaker": "S1",
        "audio_prompt": "my_audio_prompt",
        "audio_prompt_transcript": "Custom transcript text",
    }
    assert requests.post(f"{server.url}/voice_mappings", json=mapping).status_code == 200

    mappings = requests.get(f"{server.url}/voice_mappings").json()
    assert mappings["aria"] == {
        "style": "neutral",
        "primary_speaker": "S1",
        "audio_prompt": None,
        "audio_prompt_transcript": None,
    }
    assert {"voice_id": "custom_voice", **mappings["custom_voice"]} == mapping

    assert "custom_voice" in shell(server, CURL["delete mapping"], tmp_path)
    assert "custom_voice" not in requests.get(f"{server.url}/voice_mappings").json()


def test_the_python_client(server: Server) -> None:
    client = DiaTTSClient(server.url)

    assert client.generate_speech("Hello, world!", voice_id="aria")[:4] == b"RIFF"
    assert client.generate_speech("Hello!", response_format="mp3", speed=1.2)[:4] != b"RIFF"
    assert len(client.list_voices()["voices"]) == 6


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_javascript_client(server: Server) -> None:
    use = f"""
        const client = new DiaTTSClient({server.url!r});
        const audio = await client.generateSpeech("Hello, world!", "aria");
        const listing = await client.listVoices();
        console.log(new TextDecoder().decode(audio.slice(0, 4)), listing.voices.length);
    """
    command = ["node", "--input-type=module", "--eval", JAVASCRIPT + use]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "RIFF 6\n"


def test_the_health_example(server: Server) -> None:
    health = requests.get(f"{server.url}/health").json()

    kinds = {
        "status": str,
        "version": str,
        "model_loaded": bool,
        "gpu_available": bool,
        "gpu_count": int,
        "worker_count": int,
        "active_jobs": int,
        "uptime": str,
    }
    assert {field: type(health[field]) for field in kinds} == kinds


def finished(server: Server, job_id: str) -> Any:
    """The job's status once it is completed."""
    deadline = time.monotonic() + 30
    while (job := requests.get(f"{server.url}/jobs/{job_id}").json())["status"] in {"pending", "processing"}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job


def test_the_async_examples(server: Server, tmp_path: Path) -> None:
    accepted = json.loads(shell(server, CURL["async"], tmp_path))
    assert accepted.keys() == {"job_id", "status", "message"}
    assert (accepted["status"], accepted["message"]) == ("pending", "Job queued for processing")

    job = finished(server, accepted["job_id"])
    assert job.keys() >= {"job_id", "status", "created_at", "completed_at", "duration", "result_url"}
    assert (job["status"], job["result_url"]) == ("completed", f"/jobs/{job['job_id']}/result")
    result = requests.get(f"{server.url}{job['result_url']}")
    assert (result.headers["content-type"], result.content[:4]) == ("audio/wav", b"RIFF")

    listed = requests.get(f"{server.url}/jobs?status=completed&limit=50").json()["jobs"]
    (summary,) = [one for one in listed if one["job_id"] == job["job_id"]]
    assert summary["text_preview"] == "Hello, async world!"
    assert requests.delete(f"{server.url}/jobs/{job['job_id']}").status_code == 200
    assert requests.get(f"{server.url}/jobs/{job['job_id']}").status_code == 404


def test_a_job_that_does_not_exist(server: Server, tmp_path: Path) -> None:
    assert json.loads(shell(server, CURL["job"], tmp_path))["error_code"] == "NOT_FOUND"


def test_the_prompt_examples(server: Server, tmp_path: Path) -> None:
    sample = tmp_path / "voice_sample.wav"
    sample.write_bytes(DiaTTSClient(server.url).generate_speech("This is a voice sample for cloning."))

    by_curl = json.loads(shell(server, CURL["upload"], tmp_path))
    assert by_curl.keys() >= {"message", "prompt_id", "file_path", "duration", "sample_rate", "transcript"}
    assert (by_curl["prompt_id"], by_curl["file_path"]) == ("my_voice", "audio_prompts/my_voice.wav")
    assert by_curl["sample_rate"] == 44100
    by_python = DiaTTSClient(server.url).upload_audio_prompt("my_voice", str(sample))
    assert by_python["duration"] == by_curl["duration"]

    (listed,) = requests.get(f"{server.url}/audio_prompts").json()["audio_prompts"]
    assert listed.keys() == {"prompt_id", "file_path", "duration", "sample_rate"}
    correction = {"transcript": "Manually corrected transcript text"}
    assert requests.put(f"{server.url}/audio_prompts/my_voice/transcript", json=correction).status_code == 200
    (metadata,) = requests.get(f"{server.url}/audio_prompts/metadata").json()["audio_prompts"]
    assert (metadata["transcript"], metadata["transcript_source"]) == (correction["transcript"], "manual")
    assert metadata == requests.get(f"{server.url}/audio_prompts/metadata/my_voice").json()

    discovery = requests.post(f"{server.url}/audio_prompts/discover", json={"force_retranscribe": False})
    assert discovery.json()["total_prompts"] == 1
    assert "my_voice" in shell(server, CURL["delete prompt"], tmp_path)
    assert requests.get(f"{server.url}/audio_prompts").json() == {"audio_prompts": []}


def test_the_whisper_status_example(server: Server) -> None:
    status = requests.get(f"{server.url}/whisper/status").json()

    assert status.keys() >= {"available", "model_loaded", "model_size", "auto_transcribe", "device"}
    assert (status["model_loaded"], status["model_size"]) == (False, "base")


def test_the_config_examples(server: Server) -> None:
    before = requests.get(f"{server.url}/config").json()
    fields = {
        "debug_mode", "save_outputs", "show_prompts", "output_retention_hours", "auto_discover_prompts",
        "auto_transcribe", "whisper_model_size", "gpu_mode", "worker_count", "torch_compile_enabled",
    }  # fmt: skip
    assert before.keys() >= fields
    change = {
        "debug_mode": True,
        "save_outputs": True,
        "auto_transcribe": True,
        "whisper_model_size": "small",
    }

    assert requests.put(f"{server.url}/config", json=change).status_code == 200

    assert requests.get(f"{server.url}/config").json() == before | change
    requests.put(f"{server.url}/config", json={name: before[name] for name in change})


def test_the_stats_example(server: Server) -> None:
    DiaTTSClient(server.url).generate_speech("Counted.")

    stats = requests.get(f"{server.url}/stats").json()
    assert stats["requests"].keys() == {"total", "successful", "failed", "success_rate"}
    assert stats["performance"].keys() == {
        "avg_generation_time",
        "avg_tokens_per_second",
        "total_audio_generated",
    }
    assert stats["resources"].keys() == {"cpu_usage", "memory_usage", "gpu_usage", "gpu_memory"}
    assert stats["requests"]["total"] >= stats["requests"]["successful"] > 0


def test_the_websocket_messages(server: Server) -> None:
    messages: list[Any] = []
    with WebSocketClient(server.port, "/ws/generate") as socket:
        socket.send({"type": "generate", "data": {"text": "Hello, world!", "voice_id": "aria"}})
        socket.send({"type": "generate", "data": {"text": "Hello, world!", "voice_id": "nobody"}})
        while not {"complete", "error"} <= {message["type"] for message in messages}:
            messages.append(socket.receive())

    progress, complete, error = (
        [one for one in messages if one["type"] == kind] for kind in ("progress", "complete", "error")
    )
    assert progress[0].keys() >= {"job_id", "progress", "stage"}
    assert "generating_tokens" in {one["stage"] for one in progress}
    assert complete[0]["audio_url"] == f"/jobs/{complete[0]['job_id']}/result"
    assert "nobody" in error[0]["message"]
    assert requests.get(f"{server.url}{complete[0]['audio_url']}").content[:4] == b"RIFF"
