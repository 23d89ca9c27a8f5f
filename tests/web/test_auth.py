import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.settings import Settings


@pytest.fixture
def guarded(settings: Settings) -> Litestar:
    return create_app(msgspec.structs.replace(settings, api_keys=("first-key", "second-key")))


@pytest.mark.parametrize("key", ["first-key", "second-key"])
async def test_each_key_opens(guarded: Litestar, key: str) -> None:
    async with AsyncTestClient(guarded) as client:
        answer = await client.get("/voices", headers={"authorization": f"Bearer {key}"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer "}, {"authorization": "Bearer first-ke"}, {"authorization": "first-key"},
     {"authorization": "Basic first-key"}, {"authorization": "Bearer first-key second-key"}],
    ids=str,
)  # fmt: skip
async def test_without_a_key_nothing_opens_but_health_and_docs(
    guarded: Litestar, headers: dict[str, str]
) -> None:
    async with AsyncTestClient(guarded) as client:
        for method, path in (("GET", "/voices"), ("POST", "/generate"), ("GET", "/v1/models")):
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHORIZED")
        for path in ("/health", "/docs", "/redoc", "/openapi.json", "/static/docs/swagger.js"):
            assert (await client.get(path, headers=headers)).status_code == 200


async def test_openai_clients_are_told_in_their_dialect(guarded: Litestar) -> None:
    async with AsyncTestClient(guarded) as client:
        answer = await client.post("/v1/audio/speech", json={"input": "Hi"})

    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("authorization", ["Bearer ", "Bearer sk-anything", "nonsense", "Basic Og=="])
async def test_without_configured_keys_any_authorization_is_taken(
    client: AsyncTestClient[Litestar], authorization: str
) -> None:
    assert (await client.get("/voices", headers={"authorization": authorization})).status_code == 200
