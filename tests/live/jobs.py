"""Jobs of a real server, over HTTP."""

from tests.live.server import Server


def status(server: Server, job_id: str) -> str:
    return str(server.get(f"/jobs/{job_id}").json()["status"])


def submit(server: Server, text: str) -> str:
    answer = server.post("/generate?async_mode=true", json={"text": text})
    return str(answer.json()["job_id"])
