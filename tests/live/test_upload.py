import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import requests

from dia_server.audio.encode import encode
from tests.live.address import PATIENCE_S
from tests.live.server import Server
from tests.recordings import RATE, sound, wav_file
from tests.waiting import wait_until

START = (
    b"POST /audio_prompts/upload HTTP/1.1\r\nHost: test\r\n"
    b"Content-Type: multipart/form-data; boundary=edge\r\nContent-Length: 50000000\r\n\r\n"
    b'--edge\r\nContent-Disposition: form-data; name="prompt_id"\r\n\r\ncut\r\n'
    b'--edge\r\nContent-Disposition: form-data; name="audio_file"; filename="x.wav"\r\n\r\n'
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("upload")
    with Server(folder, auto_transcribe="false", rate_limit_upload=0, log_format="json") as server:
        yield server


@pytest.fixture
def files(server: Server) -> Callable[[], set[str]]:
    """Return a function that returns the names of prompt files which the test has added."""

    def names() -> set[str]:
        return set(os.listdir(server.data_dir / "audio_prompts"))

    before = names()
    return lambda: names() - before


def test_the_references_python_client_and_curl_upload(server: Server, tmp_path: Path) -> None:
    sample = tmp_path / "sample.wav"
    sample.write_bytes(wav_file(1.0))
    url = f"{server.url}/audio_prompts/upload"
    with sample.open("rb") as file:
        by_client = requests.post(
            url, files={"audio_file": file}, data={"prompt_id": "by_requests"}, timeout=60
        )
    assert by_client.json()["prompt_id"] == "by_requests"

    if curl := shutil.which("curl"):
        form = ["-F", "prompt_id=by_curl", "-F", f"audio_file=@{sample}"]
        answer = subprocess.run([curl, "-sS", "-X", "POST", url, *form], capture_output=True, check=True)
        assert b"by_curl" in answer.stdout


def test_an_upload_that_is_cut_leaves_nothing(server: Server, files: Callable[[], set[str]]) -> None:
    start = len(server.log)
    for sent in (0, 100, 5_000_000):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(START + wav_file(50.0)[:sent])
            time.sleep(0.2)
    wait_until(lambda: server.log[start:].count('"status": 400') >= 3)

    prompts = server.get("/audio_prompts").json()["audio_prompts"]
    assert "cut" not in {prompt["prompt_id"] for prompt in prompts}
    assert "Traceback" not in server.log
    assert files() == set()


def test_a_large_upload_goes_to_the_disk_and_others_are_served_meanwhile(
    server: Server, files: Callable[[], set[str]]
) -> None:
    hours = encode(sound(60.0), RATE, "mp3") * 150
    assert len(hours) > 100_000_000
    with ThreadPoolExecutor() as threads:
        before = memory(server)
        upload = threads.submit(
            server.post,
            "/audio_prompts/upload",
            data={"prompt_id": "hours"},
            files={"audio_file": ("hours.mp3", hours)},
        )
        answered = 0
        while not upload.done():
            answered += server.get("/health").status_code == 200

        answer = upload.result()
        assert (answer.status_code, answer.json()["error_code"]) == (422, "AUDIO_PROCESSING_ERROR")
        assert memory(server) - before < 60e6
        assert answered > 3
    assert files() == set()


def test_an_upload_with_too_large_a_content_length_is_refused_at_once(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(START.replace(b"50000000", b"300000000"))
        answer = connection.recv(1000)

    assert b" 413 " in answer
    assert b"connection: close" in answer  # the rest of the body is not read


def test_a_connection_is_kept_where_the_body_was_read(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        file = {"audio_file": ("x.wav", b"no audio")}
        refused = client.post("/audio_prompts/upload", data={"prompt_id": "x"}, files=file)
        assert refused.status_code == 422
        assert "connection" not in refused.headers


@pytest.mark.full
def test_prompts_are_whole_after_a_kill_in_mid_change(tmp_path: Path) -> None:
    recordings = [wav_file(1.0), wav_file(5.0)]
    with (
        Server(tmp_path, auto_transcribe="false", rate_limit_upload=0) as server,
        ThreadPoolExecutor() as threads,
    ):
        for life in range(3):
            changed = threading.Event()
            changing = threads.submit(change_until_killed, server.url, recordings, changed)
            assert changed.wait(PATIENCE_S)
            time.sleep(0.2 + 0.1 * life)
            server.kill()
            changing.result()
            server.start()

            prompts = server.get("/audio_prompts/metadata").json()["audio_prompts"]
            sizes = {f"{prompt['prompt_id']}.wav": prompt["file_size"] for prompt in prompts}
            folder = tmp_path / "audio_prompts"
            assert sizes == {path.name: path.stat().st_size for path in folder.glob("*.wav")}
            assert {path.suffix for path in folder.iterdir()} <= {".wav", ".txt"}


def change_until_killed(url: str, recordings: list[bytes], changed: threading.Event) -> None:
    """Replace three prompts in turn until the server is gone; set `changed` once the first is stored."""
    answered = 0
    gone = requests.ConnectionError, requests.exceptions.ChunkedEncodingError
    # not httpx: it may leave a socket open whose server is killed
    with requests.Session() as client, suppress(*gone):
        while True:
            prompt_id = f"voice{answered % 3}"
            file = {"audio_file": ("x.wav", recordings[answered % 2])}
            client.post(
                f"{url}/audio_prompts/upload", data={"prompt_id": prompt_id}, files=file, timeout=30
            ).raise_for_status()
            client.put(
                f"{url}/audio_prompts/{prompt_id}/transcript", json={"transcript": "Hello."}, timeout=30
            ).raise_for_status()
            answered += 1
            changed.set()


def memory(server: Server) -> int:
    """Return the peak resident memory of the server's worker, in bytes."""
    assert server.process is not None
    children = subprocess.run(
        ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True
    )
    status = Path(f"/proc/{children.stdout.split()[0]}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
