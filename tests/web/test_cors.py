from litestar import Litestar
from litestar.testing import AsyncTestClient

Client = AsyncTestClient[Litestar]
ORIGIN = {"origin": "http://localhost:8000"}


async def test_any_page_may_ask_first(client: Client) -> None:
    wishes = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,cache-control,content-type",
    }

    answer = await client.options("/v1/audio/speech", headers=ORIGIN | wishes)

    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert {"authorization", "cache-control", "content-type"} <= {
        name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")
    }


async def test_every_answer_can_be_read_by_a_page(client: Client) -> None:
    for answer in (
        await client.get("/voices", headers=ORIGIN),
        await client.get("/nowhere", headers=ORIGIN),
        await client.post("/generate", json={}, headers=ORIGIN),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
        exposed = answer.headers["access-control-expose-headers"].lower()
        assert all(name in exposed for name in ("x-ratelimit-reset", "retry-after", "x-request-id"))
