"""A start that fails prints one line with the cause and exits with 1, from `serve` and `db upgrade`."""

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from dia_server.cli import main


def fill(path: Path, kind: str) -> None:
    match kind:
        case "other":
            path.write_bytes(b"not a database " * 300)
        case "malformed":
            with closing(sqlite3.connect(path)) as database:
                database.execute("CREATE TABLE alembic_version (version_num TEXT)")
                database.commit()
            path.write_bytes(path.read_bytes()[:4096] + b"A" * 4096)
        case "newer":
            with closing(sqlite3.connect(path)) as database:
                database.execute("CREATE TABLE alembic_version (version_num TEXT)")
                database.execute("INSERT INTO alembic_version VALUES ('9999')")
                database.commit()
        case "folder":
            path.mkdir()


DATABASES = {
    "other": "is damaged: file is not a database. Put a backup in its place",
    "malformed": "is damaged: database disk image is malformed. Put a backup in its place",
    "newer": "was written by another version: Can't locate revision identified by '9999'. Install",
    "folder": "cannot be used: unable to open database file. See DIA_DATA_DIR",
}
FOLDERS = {
    "/proc/data": "/proc/data: No such file or directory",
    "file": "File exists",
    "file/in/it": "Not a directory",
}
URLS = {
    "nonsense": "DIA_DATABASE_URL: Could not parse SQLAlchemy URL",
    "sqlite:///x.sqlite3": "DIA_DATABASE_URL: sqlite cannot be used: name an asynchronous driver",
    "cobol://host/name": "DIA_DATABASE_URL: Can't load plugin",
    "postgresql+psycopg://dia@/dia?host=/nowhere": (
        "The database postgresql+psycopg://dia@/dia?host=%2Fnowhere cannot be used: connection is bad: "
    ),
}
COMMANDS = pytest.mark.parametrize("command", [["serve"], ["db", "upgrade"]], ids=" ".join)


def refusal(command: list[str]) -> str:
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 1, run.output
    assert run.output.startswith("Error: ")
    assert run.output.count("\n") == 1, run.output
    return run.output


@pytest.fixture(autouse=True)
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIA_DATA_DIR", str(tmp_path))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        monkeypatch.setenv("DIA_PORT", str(free.getsockname()[1]))


@COMMANDS
@pytest.mark.parametrize("kind", DATABASES)
def test_an_unusable_database_is_reported_in_one_line(tmp_path: Path, command: list[str], kind: str) -> None:
    fill(tmp_path / "dia.sqlite3", kind)

    assert f"The database {tmp_path}/dia.sqlite3 {DATABASES[kind]}" in refusal(command)


@COMMANDS
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_data_folder_that_cannot_be_created_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], folder: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIA_DATA_DIR", str(tmp_path / folder))

    line = refusal(command)

    assert FOLDERS[folder] in line
    assert "DIA_DATA_DIR" in line


def test_a_read_only_data_folder_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIA_DATA_DIR", "/proc")

    assert "database /proc/dia.sqlite3 cannot be used: unable to open" in refusal(["db", "upgrade"])
    assert "data folder cannot be used: /proc/dia.sqlite3.lock" in refusal(["serve"])


@COMMANDS
@pytest.mark.parametrize("url", URLS)
def test_an_invalid_database_url_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, command: list[str], url: str
) -> None:
    monkeypatch.setenv("DIA_DATABASE_URL", url)

    assert URLS[url] in refusal(command)
