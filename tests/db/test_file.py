"""Writes fail while the SQLite file is deleted or replaced, because they would be lost."""

import os
import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from dia_server.db.engine import Database
from dia_server.errors import StorageUnavailable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dia.sqlite3"


async def write(database: Database) -> None:
    async with database.sessions.begin() as session:
        await session.execute(text("UPDATE totals SET failed = failed + 1"))


async def written(database: Database) -> int:
    async with database.reads() as session:
        return int(await session.scalar(text("SELECT failed FROM totals")))


def content(path: Path) -> bytes:
    return path.read_bytes()


def names(path: Path) -> list[str]:
    """Return a list with the name of the file, or an empty list if it is missing."""
    return [file.name for file in path.parent.iterdir() if file.name == path.name]


async def test_writes_fail_while_the_file_is_deleted(database: Database, path: Path) -> None:
    await write(database)
    away = path.with_name("away")
    os.replace(path, away)

    for refused in (write(database), database.require_writable()):
        with pytest.raises(StorageUnavailable, match="cannot be found: No such file") as failure:
            await refused
        assert failure.value.retry_after
    assert names(path) == []

    os.replace(away, path)
    await database.require_writable()
    await write(database)
    assert await written(database) == 2


async def test_writes_fail_while_the_file_is_replaced(database: Database, path: Path) -> None:
    await write(database)
    away = path.with_name("away")
    os.replace(path, away)
    shutil.copy(away, path)
    copied = content(path)

    for refused in (write(database), database.require_writable()):
        with pytest.raises(StorageUnavailable, match="was replaced while the server ran"):
            await refused
    assert content(path) == copied

    os.replace(away, path)
    await write(database)
    assert await written(database) == 2


async def test_a_commit_to_a_deleted_file_raises(database: Database, path: Path) -> None:
    async def lose() -> None:
        async with database.sessions.begin() as session:
            await session.execute(text("UPDATE totals SET failed = failed + 1"))
            os.remove(path)

    with pytest.raises(StorageUnavailable, match="cannot be found"):
        await lose()


async def test_a_new_connection_does_not_create_the_file(database: Database, path: Path) -> None:
    os.remove(path)

    with pytest.raises(StorageUnavailable, match="cannot be found"):  # the first one to read
        await written(database)
    assert names(path) == []


async def test_paths_with_special_characters_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a%20b?c#d é" / "dia.sqlite3"
    path.parent.mkdir()
    database = Database(f"sqlite+aiosqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}")
    await database.upgrade()

    await write(database)
    assert await written(database) == 1
    await database.close()


async def test_a_database_in_memory_has_no_file() -> None:
    database = Database("sqlite+aiosqlite://")
    await database.upgrade()

    await database.require_writable()
    await database.close()
