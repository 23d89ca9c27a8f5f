"""A server whose database is PostgreSQL."""

from pathlib import Path

from tests.live.jobs import status, submit
from tests.live.server import Server
from tests.postgres import ON_POSTGRES, Postgres
from tests.waiting import wait_until

pytestmark = ON_POSTGRES


def test_a_server_reconnects_to_postgresql_and_keeps_its_jobs(
    tmp_path: Path, database_url: str, postgres: Postgres
) -> None:
    with Server(tmp_path, database_url=database_url) as server:
        first = submit(server, "Hello there.")
        wait_until(lambda: status(server, first) == "completed")

        postgres.disconnect()

        second = submit(server, "Hello again.")
        wait_until(lambda: status(server, second) == "completed")
        assert server.stop() == 0

        server.start()
        assert [status(server, job_id) for job_id in (first, second)] == ["completed", "completed"]
        assert server.get(f"/jobs/{first}/result").content[:4] == b"RIFF"
    assert not (tmp_path / "dia.sqlite3").exists()
