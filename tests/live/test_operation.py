"""Starting, stopping, logging, restarting."""

import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import httpx

from tests.live import forks
from tests.live.clients import wait_for
from tests.live.server import Server, free_port

SECRET_TEXT = "the purple elephant sleeps"


def test_sigint_and_sigterm_end_the_server_cleanly_and_voices_survive(tmp_path: Path) -> None:
    server = Server(tmp_path, fork=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        server.start()
        if number is signal.SIGINT:
            server.post("/voice_mappings", json={"voice_id": "narrator", "style": "deep"})
        assert server.get("/voice_mappings").json()["narrator"]["style"] == "deep"
        assert server.process
        server.process.send_signal(number)
        assert server.process.wait(timeout=15) == 0
    assert "Traceback" not in server.log


def test_a_running_request_is_answered_before_shutdown(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        answers: list[httpx.Response] = []
        text = "This is said to the end. " * 60
        thread = threading.Thread(
            target=lambda: answers.append(server.post("/generate", json={"text": text}))
        )
        thread.start()
        wait_for(server, busy=True)
        server.stop()
        thread.join()

    assert answers[0].status_code == 200
    assert len(answers[0].content) > 1_000_000


def test_the_log_is_json_on_request_and_holds_no_texts(tmp_path: Path) -> None:
    with Server(tmp_path, log_format="json", log_level="debug") as server:
        body = {"text": SECRET_TEXT}
        answer = server.post("/generate", json=body)
        server.post("/generate", json=body | {"voice_id": "nobody"})
        server.post("/generate", content=b'{"text": "' + SECRET_TEXT.encode())
        server.post("/generate", json=body | {"speed": SECRET_TEXT})

    lines = [json.loads(line) for line in server.log.splitlines()]
    ours = [line for line in lines if line.get("request_id") == answer.headers["x-request-id"]]
    assert [(line["event"], line["path"], line["status"]) for line in ours] == [("request", "/generate", 200)]
    assert SECRET_TEXT not in server.log


def test_the_log_has_the_address_and_no_lines_of_libraries(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        server.post("/generate", json={"text": "Hi"})

    events = re.findall(r"] (\w+(?: \w+)*)", server.log)
    assert set(events) - {"loading", "request"} == {"model loaded", "started", "shutting down", "stopped"}
    assert re.search(rf"] started +engine=preview url={server.url}\n", server.log)
    assert "\x1b" not in server.log


def test_the_log_holds_texts_with_show_prompts(tmp_path: Path) -> None:
    with Server(tmp_path, show_prompts="true") as server:
        server.post("/generate", json={"text": SECRET_TEXT})

    assert SECRET_TEXT in server.log


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return forks.run(["-m", "dia_server", *arguments], cwd, os.environ | variables, timeout=30)


def test_invalid_settings_end_the_start_with_an_error(tmp_path: Path) -> None:
    wrong = run("serve", cwd=tmp_path, DIA_PORT="70000", DIA_PROT="1")

    assert wrong.returncode == 1
    assert "Error: DIA_PORT: expected `int` <= 65535, not '70000'" in wrong.stderr
    assert "Warning: DIA_PROT is not a setting" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_port_in_use_ends_the_start_with_an_error(server: Server, tmp_path: Path) -> None:
    second = run("serve", "--port", str(server.port), "--data-dir", str(tmp_path), cwd=tmp_path)

    assert second.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{server.port}" in second.stderr


def test_a_missing_storage_ends_the_start_with_one_line(tmp_path: Path) -> None:
    missing = run("serve", cwd=tmp_path, DIA_STORAGE=f"file://{tmp_path}/missing", DIA_PORT=str(free_port()))

    assert missing.returncode == 1
    assert missing.stderr == (
        f"Error: DIA_STORAGE: there is no folder {tmp_path}/missing: create it, or mount its disk\n"
    )


def test_the_database_is_upgraded_by_hand(tmp_path: Path) -> None:
    upgraded = run("db", "upgrade", "--data-dir", str(tmp_path / "data"), cwd=tmp_path)

    assert (upgraded.returncode, upgraded.stderr) == (0, "")
    assert (tmp_path / "data" / "dia.sqlite3").exists()
