import hashlib
import os
from pathlib import Path

import pytest

from dia_server.services.digest_folder import MAX_AGE_S, DigestFolder


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def store(folder: DigestFolder, path: Path, content: bytes, age_s: float = 0) -> str:
    """Write a file that was last used `age_s` seconds ago; return its digest."""
    folder.write(digest(content), content)
    file = path / f"{digest(content)}.wav"
    used = file.stat().st_mtime - age_s
    os.utime(file, (used, used))
    return digest(content)


def stored(path: Path) -> set[str]:
    return {file.stem for file in path.iterdir()}


def test_a_file_is_read_only_as_it_was_written(tmp_path: Path) -> None:
    folder = DigestFolder(tmp_path / "files", suffix=".wav")
    name = store(folder, tmp_path / "files", b"audio")
    assert folder.read(name) == folder.use(name) == b"audio"

    (tmp_path / "files" / f"{name}.wav").write_bytes(b"Audio")
    with pytest.raises(ValueError, match="changed"):
        folder.read(name)
    assert folder.use(name) is None
    with pytest.raises(FileNotFoundError):
        folder.read(digest(b"other"))
    assert folder.use(digest(b"other")) is None


def test_old_files_are_swept_unless_they_are_needed(tmp_path: Path) -> None:
    folder = DigestFolder(tmp_path, suffix=".wav")
    folder.sweep(set())
    old = store(folder, tmp_path, b"old", MAX_AGE_S + 60)
    needed = store(folder, tmp_path, b"needed", MAX_AGE_S + 60)
    young = store(folder, tmp_path, b"young", MAX_AGE_S - 60)
    (tmp_path / ".leftover.tmp").write_bytes(b"half")
    (tmp_path / "mine.wav").write_bytes(b"of the operator")

    folder.sweep({needed})
    assert stored(tmp_path) == {needed, young, "mine"}
    assert old not in stored(tmp_path)


@pytest.mark.parametrize(("max_files", "max_bytes"), [(3, 1000), (1000, 30)])
def test_room_is_made_by_deleting_the_least_recent(tmp_path: Path, max_files: int, max_bytes: int) -> None:
    folder = DigestFolder(tmp_path, suffix=".wav", max_files=max_files, max_bytes=max_bytes)
    names = [store(folder, tmp_path, bytes([number]) * 10, 100 - number) for number in range(3)]

    assert not folder.has_room(10)
    assert folder.make_room(10, {names[0]})
    assert stored(tmp_path) == {names[0], names[2]}
    assert folder.has_room(10)

    store(folder, tmp_path, b"x" * 10)
    assert not folder.make_room(10, stored(tmp_path))
    assert len(stored(tmp_path)) == 3
