from pathlib import Path

import pytest

from dia_server.db.lock import AlreadyServed, ServerLock


def sqlite(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


def test_a_database_has_one_server_at_a_time(tmp_path: Path) -> None:
    url = sqlite(tmp_path / "dia.sqlite3")
    first, second = ServerLock(url, tmp_path / "a"), ServerLock(url, tmp_path / "b")
    first.acquire()
    with pytest.raises(AlreadyServed, match=r"dia\.sqlite3.*DIA_DATA_DIR"):
        second.acquire(timeout_s=0.1)

    first.release()
    second.acquire(timeout_s=0.1)
    second.release()


@pytest.mark.parametrize("name", ["", ":memory:", "{}/other.sqlite3"])
def test_an_outputs_folder_has_one_server_at_a_time_whatever_the_databases(tmp_path: Path, name: str) -> None:
    outputs = tmp_path / "audio_outputs"
    first = ServerLock("postgresql+asyncpg://host/name", outputs)
    second = ServerLock(f"sqlite+aiosqlite:///{name.format(tmp_path)}", outputs)
    first.acquire()
    with pytest.raises(AlreadyServed, match="audio_outputs"):
        second.acquire(timeout_s=0.1)

    first.release()
    second.acquire(timeout_s=0.1)
    second.release()


def test_a_refused_server_releases_its_locks(tmp_path: Path) -> None:
    url, outputs = sqlite(tmp_path / "dia.sqlite3"), tmp_path / "audio_outputs"
    other = ServerLock("postgresql+asyncpg://host/name", outputs)
    other.acquire()
    with pytest.raises(AlreadyServed):
        ServerLock(url, outputs).acquire(timeout_s=0)

    third = ServerLock(url, tmp_path / "elsewhere")
    third.acquire(timeout_s=0)
    third.release()
    other.release()
