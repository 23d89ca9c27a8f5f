"""Checks the data folder, its disk, the object storage and the database."""

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from dia_server import settings
from dia_server.configuration import default_config, set_variables
from dia_server.doctor.finding import Finding, note, ok, wrong
from dia_server.services.config import decode_stored, find_overridden
from dia_server.settings import Settings

LITTLE_SPACE = 2 * 10**9
"""Free disk space in bytes below which the doctor gives a note: about six hours of WAV audio."""
NO_SPACE = 100 * 10**6
"""Free disk space in bytes below which the doctor reports the disk as `wrong`."""
CONNECT_S = 5.0
"""Maximum seconds to connect to the database and query it; with SQLite, to wait for the lock of the file."""


def check_folder(conf: Settings) -> Iterator[Finding]:
    folder = Path(conf.data_dir).resolve()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        yield wrong("Data folder", f"{there} is a file. Set DIA_DATA_DIR.")
        return
    yield _writable(folder, there)
    for inner in (conf.audio_prompts, conf.audio_outputs, conf.anchors):
        if inner.exists() and not os.access(inner, os.W_OK | os.X_OK):
            yield wrong("Data folder", f"{inner.resolve()} cannot be written by this user.")
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:.1f} GB free in {there}"
    if free < NO_SPACE:
        yield wrong("Disk", f"{text}: delete some files.")
    elif free < LITTLE_SPACE:
        yield note("Disk", f"{text}: outputs will soon fill it. Lower DIA_OUTPUT_RETENTION_HOURS.")
    else:
        yield ok("Disk", text)


def check_storage(conf: Settings) -> Iterator[Finding]:
    from dia_server.services.object_store import StorageUnusable, check

    if conf.storage:
        try:
            check(conf.storage)
        except StorageUnusable as error:
            yield wrong("Storage", str(error))
        else:
            yield ok("Storage", conf.storage)


def check_database(conf: Settings) -> Iterator[Finding]:
    from sqlalchemy.exc import SQLAlchemyError

    from dia_server.db import migrate
    from dia_server.db.preparation import DatabaseUnusable, check_url

    try:
        url = check_url(conf.sqlalchemy_url)
    except DatabaseUnusable as error:
        yield wrong("Database", str(error))
        return
    if url.get_backend_name() == "sqlite":
        if url.database in {None, "", ":memory:"}:
            yield note("Database", "in memory: voices and jobs are lost when the server stops.")
            return
        file = Path(url.database or "").resolve()
        if not file.exists():
            yield ok("Database", f"{file} will be created at the first start")
            return
    try:
        current = next((row[0] for row in _rows(conf, "SELECT version_num FROM alembic_version")), None)
    except sqlite3.DatabaseError as error:
        yield wrong(
            "Database", f"{file} cannot be used: {error}. Put a backup in its place, or move it away."
        )
        return
    except (SQLAlchemyError, TimeoutError) as error:
        cause = str(error).partition("\n")[0] or f"no answer within {CONNECT_S:.0f} s"
        yield wrong("Database", f"PostgreSQL cannot be used: {cause}. See DIA_DATABASE_URL.")
        return
    known, head = migrate.revisions()
    if current == head:
        yield ok("Database", f"at revision {current}")
        yield from _overridden(conf)
    elif current is None or current in known:
        yield note(
            "Database", f"at revision {current}; the next start upgrades it to {head}. Back it up first."
        )
    else:
        yield wrong(
            "Database",
            f"at revision {current}, of a newer dia-server: install that version, or restore a backup.",
        )


def _overridden(conf: Settings) -> Iterator[Finding]:
    """Yield a note for each variable without effect: PUT /config has stored another value in the database."""
    stored = decode_stored(_rows(conf, "SELECT name, value FROM config"))
    variables = set_variables(settings.given())
    for field, variable in find_overridden(stored, default_config(conf), variables).items():
        yield note(
            "Settings",
            f"{variable} has no effect: {field} is stored as {msgspec.json.encode(stored[field]).decode()}. "
            f"DELETE /config/{field} removes that value.",
        )


def _writable(folder: Path, there: Path) -> Finding:
    """Check that files can be created in `there`, which is `folder` or its closest existing parent."""
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return wrong("Data folder", f"{there} cannot be written: {error.strerror}. Set DIA_DATA_DIR.")
    return ok("Data folder", str(folder) if folder == there else f"{folder} will be created")


def _rows(conf: Settings, statement: str) -> list[Any]:
    """Return the rows of the SELECT `statement`; empty if its table does not exist.

    SQLite files are opened read-only, because a server may be using them.
    """
    from sqlalchemy.engine import make_url

    url = make_url(conf.sqlalchemy_url)
    if url.get_backend_name() != "sqlite":
        return asyncio.run(asyncio.wait_for(_server_rows(conf.sqlalchemy_url, statement), CONNECT_S))
    file = Path(url.database or "").resolve()
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=CONNECT_S)) as connection:
        try:
            return connection.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


async def _server_rows(url: str, statement: str) -> list[Any]:
    from sqlalchemy import text
    from sqlalchemy.exc import ProgrammingError
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return [*await connection.execute(text(statement))]
    except ProgrammingError:  # the table does not exist
        return []
    finally:
        await engine.dispose()
