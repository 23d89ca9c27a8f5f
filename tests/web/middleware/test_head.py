from collections.abc import Mapping

from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.settings import Settings
from tests.recordings import wav_file
from tests.waiting import early_in_a_minute, until

Client = AsyncTestClient[Litestar]

CHANGING = {"x-request-id", "x-ratelimit-remaining", "x-ratelimit-reset"}
LIVE_SIZE = {"/metrics", "/stats", "/health"}
"""Paths whose bodies differ between calls."""


async def comparable(client: Client, method: str, path: str) -> tuple[int, Mapping[str, str]]:
    answer = await client.request(method, path)
    if method == "HEAD":
        assert answer.content == b""
    ignored = CHANGING | ({"content-length"} if path in LIVE_SIZE else set())
    return answer.status_code, {name: value for name, value in answer.headers.items() if name not in ignored}


async def test_head_answers_like_get_on_every_route(client: Client) -> None:
    files = {"audio_file": ("x.wav", wav_file(1.0))}
    await client.post("/audio_prompts/upload", data={"prompt_id": "one", "transcript": "One."}, files=files)
    job_id = (await client.post("/generate?async_mode=true", json={"text": "Hi."})).json()["job_id"]

    async def completed() -> bool:
        return bool((await client.get(f"/jobs/{job_id}")).json()["status"] == "completed")

    await until(completed)
    values = {"job_id": job_id, "prompt_id": "one", "voice_id": "aria", "model": "dia"}
    values |= {"name": "dia", "candidate_id": "none", "file_path": "/docs/swagger-ui-bundle.js"}
    paths = [
        route.path_format.format(**values).replace("//", "/")
        for route in client.app.routes
        if isinstance(route, HTTPRoute) and "GET" in route.methods
    ]
    assert len(paths) > 20

    for path in [*paths, "/nowhere", "/jobs/nowhere", "/static/nowhere", "/generate"]:
        get = await comparable(client, "GET", path)
        assert await comparable(client, "HEAD", path) == get, path
        assert "content-length" in get[1] or path in LIVE_SIZE, path


async def test_head_confirms_a_cached_file(client: Client) -> None:
    etag = (await client.head("/")).headers["etag"]

    assert (await client.head("/", headers={"If-None-Match": etag})).status_code == 304


async def test_head_starts_no_work(client: Client) -> None:
    for path in ("/generate", "/v1/audio/speech", "/audio_prompts/upload"):
        answer = await client.head(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert (await client.get("/stats")).json()["requests"]["total"] == 0


async def test_a_405_lists_head_as_allowed(client: Client) -> None:
    assert (await client.put("/health")).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_head_counts_against_rate_limits_like_get(settings: Settings) -> None:
    limited = Settings(data_dir=settings.data_dir, engine="preview", rate_limit_jobs=2)
    async with AsyncTestClient(create_app(limited)) as client:
        early_in_a_minute()
        assert [(await client.head("/jobs")).status_code for _ in range(3)] == [200, 200, 429]
