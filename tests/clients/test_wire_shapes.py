"""Requests of clients that are too large to install, with the same headers, and the fields that they read.

Open WebUI 0.12.4: `routers/audio`. Home Assistant's custom integration sfortis/openai_tts:
`api_validation.py` at commit 133236b, `openaitts_engine.py` at 917b282, `voice_listing.py` at 25f6664.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.clients.audio import seconds
from tests.each import each
from tests.live.server import Server

OPEN_WEBUI = {
    "accept": "*/*",
    "accept-encoding": "gzip, deflate",
    "user-agent": "Python/3.12 aiohttp/3.13.3",
    "content-type": "application/json",
}
HOME_ASSISTANT = {"content-type": "application/json", "user-agent": "HomeAssistant-OpenAI-TTS"}
PROBE = {"model": "tts-1", "input": ".", "voice": "alloy", "response_format": "mp3"}


def test_open_webui_lists_voices_without_a_key(server: Server) -> None:
    answer = requests.get(f"{server.url}/v1/audio/voices", timeout=60)

    assert answer.headers["content-type"].startswith("application/json")  # aiohttp's json() requires it
    voices = {voice["id"]: voice["name"] for voice in answer.json()["voices"]}
    assert voices.items() >= {"aria": "Aria", "atlas": "Atlas"}.items()


def test_open_webui_finds_the_models(server: Server) -> None:
    answer = requests.get(f"{server.url}/v1/audio/models", timeout=60)

    assert [model["id"] for model in answer.json()["models"]] == ["dia"]


@each("key", ["Bearer ", "Bearer None", "Bearer sk-anything"])
def test_open_webui_sends_the_sentences_of_a_message_concurrently(server: Server, key: str) -> None:
    def speak(sentence: str) -> requests.Response:
        body = {"input": sentence, "voice": "aria", "model": "dia"}
        headers = OPEN_WEBUI | {"authorization": key}
        return requests.post(f"{server.url}/v1/audio/speech", json=body, headers=headers, timeout=60)

    with ThreadPoolExecutor() as threads:
        answers = threads.map(speak, [f"This is sentence number {number}." for number in range(6)])

        for answer in answers:
            assert answer.headers["content-type"] == "audio/wav"  # its transcoder relies on it
            assert 0.5 < seconds(answer.content, "wav") < 5


def test_open_webui_gets_the_reason_of_a_refusal(server: Server) -> None:
    body = {"input": "Hello.", "voice": "nobody", "model": "dia"}
    answer = requests.post(f"{server.url}/v1/audio/speech", json=body, headers=OPEN_WEBUI, timeout=60)

    assert answer.status_code == 404
    assert "nobody" in answer.json()["error"]["message"]


def test_home_assistants_probe_is_answered(server: Server) -> None:
    headers = {"content-type": "application/json", "authorization": "Bearer anything"}
    answer = requests.post(f"{server.url}/v1/audio/speech", json=PROBE, headers=headers, timeout=60)

    assert answer.status_code == 200


@pytest.mark.full
def test_home_assistants_probe_is_refused_with_a_wrong_key(tmp_path: Path) -> None:
    with Server(tmp_path, api_keys="secret") as locked:
        url, wrong = f"{locked.url}/v1/audio/speech", {"authorization": "Bearer wrong"}
        assert requests.post(url, json=PROBE, headers=wrong, timeout=60).status_code == 401


def test_home_assistant_lists_voices_beside_the_speech(server: Server) -> None:
    answer = requests.get(
        f"{server.url}/v1/audio/voices", params={"limit": 100}, headers=HOME_ASSISTANT, timeout=8
    )

    listing = answer.json()
    assert not listing.keys() & {"items", "data"}  # it prefers them to "voices"
    assert {"value": "aria", "label": "Aria"} in [
        {"value": voice["id"], "label": voice["name"]} for voice in listing["voices"]
    ]


def test_home_assistant_gets_speech(server: Server) -> None:
    body = {
        "model": "tts-1",
        "input": "The washing machine is done.",
        "voice": "alloy",
        "response_format": "mp3",
        "speed": 1.0,
        "instructions": "Speak cheerfully.",
    }
    answer = requests.post(f"{server.url}/v1/audio/speech", json=body, headers=HOME_ASSISTANT, timeout=60)

    assert 0.5 < seconds(answer.content, "mp3") < 5


def test_home_assistant_reads_a_stream_of_opus(server: Server) -> None:
    body = {
        "model": "tts-1",
        "input": "The washing machine is done.",
        "voice": "alloy",
        "response_format": "opus",
        "speed": 1.0,
    }
    speech = f"{server.url}/v1/audio/speech"
    with requests.post(speech, json=body, headers=HOME_ASSISTANT, timeout=60, stream=True) as answer:
        answer.raise_for_status()
        audio = b"".join(answer.iter_content(4096))

    assert 0.5 < seconds(audio, "opus") < 5
