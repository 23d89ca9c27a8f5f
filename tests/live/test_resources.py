"""Disks that are full, read-only or not mounted: clear errors, and recovery once the disk is back."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.address import PATIENCE_S
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.recordings import wav_file
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount file systems"
)

TEXT = "The quick brown fox jumps over the lazy dog and runs away into the dark wood. " * 4
"""Makes more than a megabyte of WAV."""


class Disk:
    """A tmpfs mounted on a folder."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        self._size = size

    def __enter__(self) -> "Disk":
        self.folder.mkdir(parents=True)
        mount("-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self.folder], check=True)

    def change(self, options: str) -> None:
        mount("-o", f"remount,{options}", str(self.folder))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill the disk; files keep the space that they have."""
        filler = self.folder / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:  # until there is no space left
                file.write(bytes(4096))
        yield
        filler.unlink()

    @property
    def files(self) -> list[str]:
        return [path.name for path in self.folder.glob("[!.]*")]


def mount(*arguments: str) -> None:
    if subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode:
        pytest.skip("may not mount")


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[httpx.Client]:
    unlimited: Any = dict.fromkeys(["rate_limit_generate", "rate_limit_upload", "rate_limit_jobs"], 0)
    with Server(folder, auto_transcribe="false", **unlimited, **settings) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield client
        assert "Traceback" not in server.log


def finished_job(client: httpx.Client) -> dict[str, Any]:
    job_id = client.post("/generate?async_mode=true", json={"text": TEXT}).json()["job_id"]
    return wait_until_finished(client, job_id)


def wait_until_finished(client: httpx.Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while (job := client.get(f"/jobs/{job_id}").json())["status"] in {"pending", "processing"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found: dict[str, Any] = job
    return found


troubled = pytest.mark.parametrize(
    ("trouble", "cure", "cause"),
    [
        ("size=64k", "size=64m", "No space left on device"),
        pytest.param("ro", "rw", "Read-only file system", marks=pytest.mark.full),
    ],
)
"""With a full disk, and with a read-only one."""


@troubled
def test_results_that_cannot_be_written_fail_their_jobs_only(
    tmp_path: Path, trouble: str, cure: str, cause: str
) -> None:
    with Disk(tmp_path / "audio_outputs", "64m") as disk, serving(tmp_path) as client:
        client.put("/config", json={"save_outputs": True})
        disk.change(trouble)

        failed = finished_job(client)
        assert failed["status"] == "failed"
        assert failed["error"] == f"The audio could not be saved in audio_outputs/: {cause}"
        assert disk.files == []
        assert client.post("/generate", json={"text": TEXT}).status_code == 200
        with WebSocketClient(client.base_url.port or 0, "/ws/generate") as socket:
            socket.send({"type": "generate", "data": {"text": TEXT}})
            while (message := socket.receive())["type"] == "progress":
                pass
            assert (message["type"], message["error_code"]) == ("error", "STORAGE_UNAVAILABLE")
            assert cause in message["message"]

        disk.change(cure)
        assert (done := finished_job(client))["status"] == "completed"
        assert disk.files == [f"{done['job_id']}.wav"]


@troubled
def test_prompts_that_cannot_be_written_are_refused_and_leave_nothing(
    tmp_path: Path, trouble: str, cure: str, cause: str
) -> None:
    def upload(prompt_id: str) -> httpx.Response:
        file = {"audio_file": ("x.wav", wav_file(2.0))}
        return client.post("/audio_prompts/upload", data={"prompt_id": prompt_id}, files=file)

    with Disk(tmp_path / "audio_prompts", "64m") as disk, serving(tmp_path) as client:
        if trouble == "ro":
            assert upload("old").status_code == 200
        before = client.get("/audio_prompts/metadata").json()
        disk.change(trouble)

        for prompt_id in ("old", "new"):
            refused = upload(prompt_id)
            assert (refused.status_code, refused.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE")
            assert cause in refused.json()["detail"]
        assert client.get("/audio_prompts/metadata").json() == before
        assert disk.files == [f"{prompt['prompt_id']}.wav" for prompt in before["audio_prompts"]]

        disk.change(cure)
        assert upload("new").status_code == 200


def test_a_database_that_cannot_grow_refuses_what_must_be_kept_and_speaks(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/database/dia.sqlite3"
    with ExitStack() as stack:
        disk = stack.enter_context(Disk(tmp_path / "database", "4m"))
        client = stack.enter_context(serving(tmp_path, database_url=url))
        mapping = {"voice_id": "mine", "audio_prompt_transcript": "x" * 4000}
        assert client.post("/voice_mappings", json=mapping).status_code == 200
        with disk.full():
            for method, path, body in (
                ("POST", "/generate?async_mode=true", {"text": TEXT}),
                ("POST", "/voice_mappings", {**mapping, "voice_id": "another"}),
                ("DELETE", "/voice_mappings/mine", None),
                ("PUT", "/config", {"show_prompts": True}),
            ):
                refused = client.request(method, path, json=body)
                assert (refused.status_code, refused.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE"), (
                    path
                )
                assert "full" in refused.json()["detail"]
            with WebSocketClient(client.base_url.port or 0, "/ws/generate") as socket:
                socket.send({"type": "generate", "data": {"text": "Hello!"}})
                assert socket.receive()["error_code"] == "STORAGE_UNAVAILABLE"
            assert client.post("/generate", json={"text": "Hello!"}).status_code == 200
            assert client.get("/jobs").json() == {"jobs": []}
            assert "another" not in client.get("/voice_mappings").json()

        assert finished_job(client)["status"] == "completed"
        assert client.put("/config", json={"show_prompts": True}).status_code == 200
        # what was said meanwhile is counted
        wait_until(lambda: client.get("/stats").json()["requests"]["successful"] >= 2)


def test_on_a_full_disk_deleting_a_job_makes_room_for_the_next(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/disk/dia.sqlite3"
    with ExitStack() as stack:
        disk = stack.enter_context(Disk(tmp_path / "disk", "16m"))
        (tmp_path / "disk" / "outputs").mkdir()
        (tmp_path / "audio_outputs").symlink_to(tmp_path / "disk" / "outputs")
        client = stack.enter_context(serving(tmp_path, database_url=url))
        first, second = finished_job(client)["job_id"], finished_job(client)["job_id"]
        with disk.full():
            assert client.post("/generate?async_mode=true", json={"text": TEXT}).status_code == 503
            refused = client.get("/health/ready")
            assert (refused.status_code, refused.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE")
            assert "the disk is full" in refused.json()["detail"]

            assert client.delete(f"/jobs/{first}").json()["status"] == "deleted"
            assert [job["job_id"] for job in client.get("/jobs").json()["jobs"]] == [second]
        assert client.get("/health/ready").status_code == 200
        assert finished_job(client)["status"] == "completed"


@pytest.mark.full
def test_a_disk_that_is_not_mounted_at_the_start_costs_no_result(tmp_path: Path) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "audio_outputs"
    disk.mkdir()
    folder.mkdir()
    mount("--bind", str(disk), str(folder))
    try:
        with serving(tmp_path) as client:
            job_id = finished_job(client)["job_id"]
    finally:
        subprocess.run(["umount", folder], check=True)

    with serving(tmp_path) as client:
        assert wait_until_finished(client, job_id)["status"] == "completed"
        assert client.get(f"/jobs/{job_id}/result").status_code == 404
        assert finished_job(client)["status"] == "completed"
        assert "is its disk mounted?" in (tmp_path / "server.log").read_text()

    mount("--bind", str(disk), str(folder))
    try:
        with serving(tmp_path) as client:
            assert client.get(f"/jobs/{job_id}/result").content[:4] == b"RIFF"
    finally:
        subprocess.run(["umount", folder], check=True)
