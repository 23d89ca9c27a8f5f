"""A PostgreSQL server of the tests' own, and the mark of tests that run on SQLite and on PostgreSQL."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from dia_server.db.preparation import prepare
from dia_server.settings import Settings

DATABASES = ("sqlite", "postgresql")
EVERYWHERE = os.environ.get("POSTGRES_TESTS") == "everywhere"
"""Whether every test with a database uses PostgreSQL, unless it has the mark `sqlite`."""
REQUIRED = EVERYWHERE or os.environ.get("POSTGRES_TESTS") == "required"
"""Whether a missing PostgreSQL fails the tests that need it."""
BOTH_DATABASES = pytest.mark.parametrize("database_url", DATABASES, indirect=True)
"""Runs a test on each database; its fixtures must include `database_url`."""
ON_POSTGRES = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""Runs a test on PostgreSQL only."""
USER = "dia"
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
}
START_S = 30
"""Maximum seconds until the server accepts connections."""


class Postgres:
    """A server without durability, reached through a socket in `folder`, which must be its user's."""

    def __init__(self, folder: Path, bin_folder: Path, user: str | None) -> None:
        """`bin_folder` holds PostgreSQL's programs; `user` runs them, None for this process's."""
        self._folder = folder
        self._bin_folder = bin_folder
        self._as_user: dict[str, Any] = {
            "user": user,
            "group": user,
            "extra_groups": user and [],
            "cwd": folder,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._template: str | None = None
        """URL of a database of the newest revision; None until `create_upgraded` needs it."""

    def initialize(self) -> None:
        options = [f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command: list[str | Path] = [self._bin_folder / "initdb", "--pgdata", self._folder / "data", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._as_user)

    def start(self) -> None:
        """Start the server; return once it accepts connections."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command: list[str | Path] = [self._bin_folder / "postgres", "-D", self._folder / "data"]
        with (self._folder / "log").open("a") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                [*command, "-k", self._folder, *settings], stdout=log, stderr=log, **self._as_user
            )
        self._process = process
        deadline = time.monotonic() + START_S
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg.OperationalError:
                log_text = (self._folder / "log").read_text()
                assert process.poll() is None, log_text
                assert time.monotonic() < deadline, log_text
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server, if it runs; all connections break, and the databases stay."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # SIGTERM would wait until all clients have left
            self._process.wait(START_S)
            self._process = None

    def create(self, template: str = "template1") -> str:
        """Create a copy of the database `template`, by default an empty one; return its SQLAlchemy URL."""
        name = f"t{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg://{USER}@/{name}?host={self._folder}"

    def create_upgraded(self) -> str:
        """Create a database of the newest revision, 0.1 s faster than by its revisions; return its URL."""
        if self._template is None:
            self._template = self.create()
            asyncio.run(prepare(self._template))
        return self.create(make_url(self._template).database or "")

    def execute(self, statement: str) -> None:
        """Execute a statement outside of the tests' databases."""
        with psycopg.connect(
            host=str(self._folder), user=USER, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())

    def set_clock(self, url: str, unix: float) -> None:
        """Stop the clock of the database at `url`, for connections that begin later."""
        name = make_url(url).database
        self.execute(f"ALTER DATABASE {name} SET search_path = clock, pg_catalog, public")
        with psycopg.connect(host=str(self._folder), user=USER, dbname=name, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS clock")
            connection.execute(
                "CREATE OR REPLACE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql "
                f"AS 'SELECT to_timestamp({unix})'".encode()
            )

    def disconnect(self) -> None:
        """End every connection of the tests, as a restart of the server does."""
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname <> 'postgres'")


def keeps_young_files(settings: Settings) -> bool:
    """Return whether a server keeps files without a row for an hour, as they may be another server's."""
    return bool(settings.database_url)


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, None if PostgreSQL is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def running() -> Iterator[Postgres]:
    """Start a server in a temporary folder.

    If PostgreSQL is missing, skip the test, or fail it if POSTGRES_TESTS is set.
    """
    if (bin_folder := programs()) is None:
        missing = pytest.fail if REQUIRED else pytest.skip
        missing("PostgreSQL is not installed; Debian's package is postgresql")
    # it refuses to run as root, and pytest's folders are closed to other users
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="dia-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user, user)
        postgres = Postgres(folder, bin_folder, user)
        postgres.initialize()
        try:
            postgres.start()
            yield postgres
        finally:
            postgres.stop()
