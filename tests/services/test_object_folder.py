import hashlib
import os
import time
from pathlib import Path

import pytest

from dia_server.services.digest_folder import DigestFolder
from dia_server.services.durable_files import GRACE_S
from dia_server.services.object_folder import ObjectFolder
from dia_server.services.object_store import ObjectStore
from tests.storage import BOTH_STORAGES, ON_FILE, open_store


@pytest.fixture
async def store(storage_url: str) -> ObjectStore:
    store = open_store(storage_url)
    await store.mark()
    return store


@pytest.fixture
def folder(store: ObjectStore, tmp_path: Path) -> ObjectFolder:
    """Objects named by digest, with a cache of at most 100 bytes."""
    return ObjectFolder(store, "things", DigestFolder(tmp_path / "cache", max_bytes=100))


def name(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}.wav"


def age(tmp_path: Path, name: str, seconds: float) -> Path:
    """Make an object as if it had been stored `seconds` ago; return its path."""
    path = tmp_path / "storage" / "things" / name
    os.utime(path, times=(time.time() - seconds,) * 2)
    return path


@BOTH_STORAGES
async def test_objects_are_read_through_the_cache(
    folder: ObjectFolder, store: ObjectStore, tmp_path: Path
) -> None:
    await folder.put(name(b"audio"), b"audio")
    assert await folder.read(name(b"audio")) == b"audio"
    await store.remove(f"things/{name(b'audio')}")
    assert await folder.read(name(b"audio")) == b"audio"

    await folder.put(name(b"audio"), b"audio")
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_bytes(b"Audio")
    assert await folder.read(name(b"audio")) == b"audio"
    assert cached.read_bytes() == b"audio"
    cached.unlink()
    assert await folder.read(name(b"audio")) == b"audio"


@ON_FILE
async def test_the_cache_is_bounded(folder: ObjectFolder, tmp_path: Path) -> None:
    contents = [bytes([number]) * 60 for number in range(3)] + [b"x" * 101]
    for content in contents:
        await folder.put(name(content), content)
        assert await folder.read(name(content)) == content

    (cached,) = (tmp_path / "cache").iterdir()
    assert cached.read_bytes() == contents[2]


@ON_FILE
async def test_a_cache_that_cannot_be_written_is_done_without(folder: ObjectFolder, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    await folder.put(name(b"audio"), b"audio")
    assert await folder.read(name(b"audio")) == b"audio"


@ON_FILE
async def test_old_objects_without_a_row_are_removed(folder: ObjectFolder, tmp_path: Path) -> None:
    known, old, young, renewed = (name(content) for content in (b"known", b"old", b"young", b"renewed"))
    for content in (b"known", b"old", b"young", b"renewed"):
        await folder.put(name(content), content)
    for one in (known, old, renewed):
        age(tmp_path, one, GRACE_S + 60)
    age(tmp_path, young, GRACE_S - 60)

    async def names() -> set[str]:
        await folder.put(renewed, b"renewed")  # another server is about to commit its row
        return {known}

    await folder.clean(names)
    assert set(os.listdir(tmp_path / "storage" / "things")) == {known, young, renewed}


@ON_FILE
async def test_an_object_that_a_power_failure_cut_short_is_stored_again(
    folder: ObjectFolder, tmp_path: Path
) -> None:
    await folder.put(name(b"audio"), b"audio")
    path = tmp_path / "storage" / "things" / name(b"audio")
    path.write_bytes(b"")

    await folder.put(name(b"audio"), b"audio")
    assert await folder.read(name(b"audio")) == b"audio"
