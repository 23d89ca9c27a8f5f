"""A PostgreSQL server of the tests' own, and the mark of tests that run on SQLite and on PostgreSQL."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

BOTH_DATABASES = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
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
    """A running server, reached through a socket in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self) -> str:
        """Create an empty database; return its SQLAlchemy URL."""
        name = f"t{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{USER}@/{name}?host={self._folder}"

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


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, None if PostgreSQL is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def running() -> Iterator[Postgres]:
    """Start a server without durability in a temporary folder; skip the test if PostgreSQL is missing."""
    if (bin_folder := programs()) is None:
        pytest.skip("PostgreSQL is not installed; Debian's package is postgresql")
    # it refuses to run as root, and pytest's folders are closed to other users
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="dia-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user, user)
        data = folder / "data"
        options = [f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [bin_folder / "initdb", "--pgdata", data, *options],
            user=user,
            group=user,
            extra_groups=user and [],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [bin_folder / "postgres", "-D", data, "-k", folder, *settings],
                user=user,
                group=user,
                extra_groups=user and [],
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        try:
            postgres = Postgres(folder)
            _wait_until_ready(postgres, process, folder / "log")
            yield postgres
        finally:
            process.send_signal(signal.SIGINT)  # SIGTERM would wait until all clients have left
            process.wait(START_S)


def _wait_until_ready(postgres: Postgres, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            return postgres.execute("SELECT 1")
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
