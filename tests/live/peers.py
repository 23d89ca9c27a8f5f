"""Two servers on one PostgreSQL, each in a process of its own."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
from sqlalchemy import make_url

from tests.live import peer_server
from tests.live.jobs import submit
from tests.live.server import Server
from tests.waiting import wait_until

SETTINGS: dict[str, Any] = {
    "rate_limit_generate": 0,
    "rate_limit_jobs": 0,
    "trusted_proxies": "127.0.0.1",
    "max_batch": 2,
}


class Peers:
    """`with Peers(folder, url) as peers` starts both servers; both slots of each run jobs."""

    def __init__(
        self, folder: Path, url: str, *, apart: bool = False, usual_timing: bool = False, **settings: Any
    ) -> None:
        """The servers share a data folder in `folder`; if `apart`, each has its own, beside a storage."""
        self.folder = folder
        self.url = url
        self.outputs = folder / "storage" / "outputs" if apart else folder / "data" / "audio_outputs"
        command = (sys.executable, peer_server.__file__, "serve")
        settings = SETTINGS | settings | ({"storage": f"file://{folder}/storage"} if apart else {})
        (folder / "storage").mkdir(exist_ok=True)
        self.servers = []
        for name in ("data1", "data2") if apart else ("data", "data"):
            (folder / name).mkdir(exist_ok=True)
            server = Server(folder / name, command=command, database_url=url, **settings)
            server.variables |= {peer_server.USUAL_TIMING: "1"} if usual_timing else {}
            self.servers.append(server)

    def __enter__(self) -> Self:
        for server in self.servers:
            server.launch()
        try:
            self.wait_until_ready()
        except TimeoutError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            if server.process is not None and server.process.poll() is None:
                server.kill()

    def wait_until_ready(self) -> None:
        wait_until(lambda: all(map(is_ready, self.servers)))

    def other(self, server: Server) -> Server:
        return self.servers[1 - self.servers.index(server)]

    @property
    def database(self) -> str | None:
        """Name of the database."""
        return make_url(self.url).database

    def submit_held(self, server: Server, name: str) -> str:
        """Submit a job that makes no audio until `release` is called with `name`; return its id."""
        return submit(server, f"Hold {name}")

    def release(self, *names: str) -> None:
        for name in names:
            (self.folder / name).touch()

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute a statement on the servers' database; return its rows."""
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def ids(self) -> dict[str, Server]:
        """Return the servers by the ids with which they are alive."""
        owners = {process.pid: server for server in self.servers for process in processes(server)}
        rows = self.query("SELECT server_id, pid FROM servers WHERE lease_until > now()")
        return {server_id: owners[pid] for server_id, pid in rows if pid in owners}

    def running(self) -> dict[str, Server]:
        """Return the running jobs of both servers, and where they run."""
        ids = self.ids()
        rows = self.query("SELECT job_id, owner FROM jobs WHERE status = 'processing'")
        return {job_id: ids[owner] for job_id, owner in rows if owner in ids}

    def wait_for_running(self) -> dict[str, Server]:
        """Wait until a job runs; return as `running`."""
        found: dict[str, Server] = {}
        wait_until(lambda: found.update(self.running()) or found)
        return found


def processes(server: Server) -> list[psutil.Process]:
    assert server.process is not None
    try:
        found: list[psutil.Process] = psutil.Process(server.process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def is_ready(server: Server) -> bool:
    try:
        return server.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stop all processes of a server by SIGSTOP inside the `with` block."""
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(server.process.pid, signal.SIGCONT)
