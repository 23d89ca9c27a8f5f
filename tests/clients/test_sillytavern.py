"""SillyTavern's server, from its npm package, as a client of a real server."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.audio import seconds
from tests.each import each
from tests.live.server import Server, free_port
from tests.waiting import early_in_a_minute

VOICES = "aria, atlas,nova"
"""List of voices as a user types it; SillyTavern splits it at commas and keeps the blanks."""


@pytest.fixture(scope="module")
def sillytavern(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Yield a client with SillyTavern's session cookie and CSRF token, as its page has them."""
    folder = tmp_path_factory.mktemp("sillytavern")
    program = folder / "node_modules" / "sillytavern"
    shutil.copytree(node_modules / "sillytavern", program)
    for package in node_modules.iterdir():
        if package.name != "sillytavern":
            (folder / "node_modules" / package.name).symlink_to(package)
    # the page's libraries, which no test uses, take half a minute to bundle
    (program / "public" / "lib.js").write_text("")
    config = folder / "config.yaml"
    config.write_text("skipContentCheck: true\n")
    url = f"http://127.0.0.1:{free_port()}"
    command = ["node", "server.js", "--configPath", str(config), "--dataRoot", str(folder / "data")]
    command += ["--port", url.rpartition(":")[2], "--browserLaunchEnabled", "false"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=program, stdout=log, stderr=log, start_new_session=True)
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            client.headers["x-csrf-token"] = token(client, process, folder / "log")
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # `node` may be a script that starts Node.js
        process.wait(timeout=30)


def token(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until SillyTavern answers, and return a CSRF token."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return str(client.get("/csrf-token").json()["token"])
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"SillyTavern did not start:\n{log.read_text()}")


def speak(sillytavern: httpx.Client, server: Server, text: str, **settings: Any) -> httpx.Response:
    """Send the request of its provider "OpenAI Compatible" (openai-compatible.js)."""
    body = {
        "provider_endpoint": f"{server.url}/v1/audio/speech",
        "model": "dia",
        "input": text,
        "voice": "aria",
        "response_format": "mp3",
        "speed": 1,
    }
    return sillytavern.post("/api/openai/custom/generate-voice", json=body | settings)


@each("voice", VOICES.split(","))
def test_a_message_is_spoken_by_each_voice_of_its_list(
    sillytavern: httpx.Client, server: Server, voice: str
) -> None:
    answer = speak(sillytavern, server, 'She *smiles*.\n\n"Hello — you!" 😊', voice=voice)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    assert 0.5 < seconds(answer.content, "mp3") < 10


def test_its_default_voice_is_spoken_at_the_chosen_speed(sillytavern: httpx.Client, server: Server) -> None:
    text = "This is a sentence of some length, read at two speeds."
    usual, fast = (
        speak(sillytavern, server, text, model="tts-1", voice="alloy", speed=speed) for speed in (1, 2)
    )

    assert seconds(fast.content, "mp3") < 0.7 * seconds(usual.content, "mp3")


def test_its_user_sees_the_reason_of_a_refusal(sillytavern: httpx.Client, server: Server) -> None:
    answer = speak(sillytavern, server, "Hello.", voice="nobody")

    assert answer.status_code == 500
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_voice_id", "voice")
    assert "nobody" in error["message"]


def test_its_stored_api_key_is_sent_and_a_message_after_the_limit_refused_with_the_reason(
    sillytavern: httpx.Client, tmp_path: Path
) -> None:
    with Server(tmp_path, api_keys="secret", rate_limit_generate=1) as locked:
        assert speak(sillytavern, locked, "Hello.").json()["error"]["code"] == "unauthorized"
        key = {"key": "api_key_custom_openai_tts", "value": "secret"}
        sillytavern.post("/api/secrets/write", json=key).raise_for_status()
        early_in_a_minute(10)
        assert speak(sillytavern, locked, "Hello.").status_code == 200
        refused = speak(sillytavern, locked, "Hello again.")

    assert refused.status_code == 500
    assert "try again in" in refused.json()["error"]["message"]
