"""Jobs of a real server, over HTTP."""

from tests.live.address import Address


def status(server: Address, job_id: str) -> str:
    return str(server.get(f"/jobs/{job_id}").json()["status"])


def submit(server: Address, text: str) -> str:
    answer = server.post("/generate?async_mode=true", json={"text": text})
    return str(answer.json()["job_id"])
