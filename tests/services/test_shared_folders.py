"""Folders that several servers share: a start does not remove what another server is writing."""

import os
import time
from pathlib import Path

import pytest

from dia_server.audio.prompt import make
from dia_server.files import Files, in_folders
from dia_server.services.durable_files import GRACE_S
from dia_server.settings import Settings

LEFTOVERS = {
    "audio_prompts/.1.tmp",
    "anchors/.1.tmp",
    "anchors/orphan.anchor",
    "candidates/.1.tmp",
    "candidates/orphan.anchor",
    "references/.1.tmp",
    "audio_outputs/.1.tmp",
}
KEPT = {"anchors/known.anchor", "candidates/known.anchor", "audio_prompts/anna.wav"}


@pytest.fixture
def conf(tmp_path: Path) -> Settings:
    """Settings of a data folder with leftovers of a crash and files that rows name."""
    for name in LEFTOVERS | KEPT:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    return Settings(data_dir=str(tmp_path))


async def clean(files: Files) -> None:
    async def known() -> set[str]:
        return {"known.anchor"}

    await files.recordings.clean(known)
    await files.anchors.clean(known)
    await files.candidates.clean(known)
    await files.references.sweep(known)
    await files.outputs.prepare(oldest="missing.wav")


def names(tmp_path: Path) -> set[str]:
    return {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")}


async def test_the_only_server_removes_leftovers_at_once(conf: Settings, tmp_path: Path) -> None:
    await clean(in_folders(conf, make, shared=False))
    assert names(tmp_path) == KEPT


async def test_one_of_several_servers_removes_old_leftovers(
    conf: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(tmp_path / "audio_prompts" / "anna.wav", times=(0, 0))
    os.link(tmp_path / "audio_prompts" / "anna.wav", tmp_path / "audio_prompts" / ".backup.tmp")
    files = in_folders(conf, make, shared=True)
    await clean(files)
    assert names(tmp_path) == LEFTOVERS | KEPT | {"audio_prompts/.backup.tmp"}

    in_an_hour = time.time() + GRACE_S + 1
    monkeypatch.setattr(time, "time", lambda: in_an_hour)
    await clean(files)
    assert names(tmp_path) == KEPT


async def test_anchors_of_several_servers_are_not_removed_at_once(conf: Settings, tmp_path: Path) -> None:
    """Another server may be about to commit a row that names the same file."""
    await in_folders(conf, make, shared=True).anchors.remove(["known.anchor"])
    assert (tmp_path / "anchors" / "known.anchor").exists()
    await in_folders(conf, make, shared=False).anchors.remove(["known.anchor"])
    assert not (tmp_path / "anchors" / "known.anchor").exists()
