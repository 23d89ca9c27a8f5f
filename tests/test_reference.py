"""The API reference's own examples, as a user would paste them, against a running server."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.live.server import Server

PORT = 7860
"""The reference's; only the port differs here."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("reference"), rate_limit_generate=0) as server:
        yield server


class DiaTTSClient:
    """The reference's Python client, but for the upload."""

    def __init__(self, base_url: str = "http://localhost:7860") -> None:
        self.base_url = base_url

    def generate_speech(self, text: str, voice_id: str = "aria", **kwargs: Any) -> bytes:
        data = {"text": text, "voice_id": voice_id, **kwargs}
        response = requests.post(f"{self.base_url}/generate", json=data)
        return response.content

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
