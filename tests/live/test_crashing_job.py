import sys
from contextlib import suppress
from pathlib import Path

from tests.live import crashing_server
from tests.live.jobs import submit
from tests.live.server import Server


def test_a_job_that_crashes_the_server_is_failed_at_the_third_start(tmp_path: Path) -> None:
    command = (sys.executable, crashing_server.__file__, "serve")
    server = Server(tmp_path, command=command, rate_limit_generate=0, rate_limit_jobs=0)
    server.start()
    innocent, guilty = submit(server, "One."), submit(server, "This will crash.")
    for _ in range(2):
        assert server.process is not None
        assert server.process.wait(30) == 1
        with suppress(
            AssertionError, ProcessLookupError
        ):  # it may have crashed again before it has answered once
            server.start()
    jobs = {job["job_id"]: job for job in server.get("/jobs").json()["jobs"]}
    assert server.stop() == 0

    assert jobs[guilty]["status"] == "failed"
    assert "SIGSEGV" in jobs[guilty]["error"]
    assert jobs[innocent]["status"] in {"pending", "processing", "completed"}
    assert "server process crashed" in server.log
    assert not list(tmp_path.glob("*.crash"))
