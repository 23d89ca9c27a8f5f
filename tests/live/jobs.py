"""Jobs of a real server, over HTTP."""

import httpx

from tests.live.server import Server


def status(server: Server, job_id: str) -> str:
    return str(httpx.get(f"{server.url}/jobs/{job_id}").json()["status"])


def submit(server: Server, text: str) -> str:
    answer = httpx.post(f"{server.url}/generate?async_mode=true", json={"text": text})
    return str(answer.json()["job_id"])
