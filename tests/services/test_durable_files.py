import errno
from pathlib import Path

import pytest

from dia_server.services.durable_files import RecoverableChange, read_journal, sync_folder


def test_file_systems_without_folder_fsync_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("os.fsync", refuse)
    sync_folder(tmp_path)


def test_a_failed_folder_fsync_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_undoing_a_change_before_its_journal_leaves_that_of_another(tmp_path: Path) -> None:
    other, change = RecoverableChange(tmp_path), RecoverableChange(tmp_path)
    other.add("a", b"new")
    other.apply()
    change.add("b", b"new")

    change.rollback()

    assert read_journal(tmp_path) is not None
    assert not (tmp_path / "b").exists()
    other.cleanup()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
