import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from litestar.types import Receive, Scope, Send

from dia_server.app import create_app
from dia_server.settings import Settings
from tests.waiting import early_in_a_minute


@pytest.fixture
def guarded(settings: Settings) -> Litestar:
    return create_app(msgspec.structs.replace(settings, api_keys=("first-key", "second-key")))


@pytest.mark.parametrize("key", ["first-key", "second-key"])
async def test_each_configured_key_is_accepted(guarded: Litestar, key: str) -> None:
    async with AsyncTestClient(guarded) as client:
        answer = await client.get("/voices", headers={"authorization": f"Bearer {key}"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer "}, {"authorization": "Bearer first-ke"}, {"authorization": "first-key"},
     {"authorization": "Basic first-key"}, {"authorization": "Bearer first-key second-key"}],
    ids=str,
)  # fmt: skip
async def test_only_health_and_docs_are_accessible_without_a_key(
    guarded: Litestar, headers: dict[str, str]
) -> None:
    async with AsyncTestClient(guarded) as client:
        for method, path in (("GET", "/voices"), ("POST", "/generate"), ("GET", "/v1/models")):
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHORIZED")
        for path in ("/health", "/docs", "/redoc", "/openapi.json", "/static/docs/swagger.js"):
            assert (await client.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("authorization", "words"),
    [
        ("", "An API key is required"),
        ("Bearer ", "An API key is required"),
        ("Bearer thrid-key", "The API key is wrong"),
    ],
)
async def test_a_wrong_key_and_a_missing_key_have_different_messages(
    guarded: Litestar, authorization: str, words: str
) -> None:
    async with AsyncTestClient(guarded) as client:
        answer = await client.get("/voices", headers={"authorization": authorization})

    assert answer.json()["detail"].startswith(words)


async def test_an_address_waits_after_twenty_wrong_keys_but_a_right_one_passes(guarded: Litestar) -> None:
    wrong, right = ({"authorization": f"Bearer {key}"} for key in ("wrong-key", "first-key"))
    async with AsyncTestClient(guarded) as client:
        early_in_a_minute()
        missing = [(await client.get("/voices")).status_code for _ in range(30)]
        guesses = [await client.get("/voices", headers=wrong) for _ in range(22)]
        openai = await client.get("/v1/models", headers=wrong)
        passed = await client.get("/voices", headers=right)
        still_missing = await client.get("/voices")
        public = await client.get("/health", headers=wrong)

    assert set(missing) == {401}
    assert [answer.status_code for answer in guesses] == [401] * 20 + [429] * 2
    assert 1 <= int(guesses[-1].headers["retry-after"]) <= 60
    assert guesses[-1].json()["error_code"] == "RATE_LIMIT_EXCEEDED"
    assert (openai.status_code, openai.json()["error"]["type"]) == (429, "rate_limit_error")
    assert (passed.status_code, still_missing.status_code, public.status_code) == (200, 401, 200)


async def test_wrong_keys_are_counted_by_client_address(settings: Settings) -> None:
    conf = msgspec.structs.replace(settings, api_keys=("first-key",), trusted_proxies=("10.0.0.1",))
    app = create_app(conf)
    handler = app.asgi_handler

    async def from_proxy(scope: Scope, receive: Receive, send: Send) -> None:
        scope["client"] = ("10.0.0.1", 4711)
        await handler(scope, receive, send)

    app.asgi_handler = from_proxy
    async with AsyncTestClient(app) as client:

        async def guess(address: str) -> int:
            headers = {"authorization": "Bearer wrong-key", "x-forwarded-for": address}
            return (await client.get("/voices", headers=headers)).status_code

        first = [await guess(f"2001:db8::{number}") for number in range(21)]
        other = await guess("2001:db8:0:1::1")

    assert (first, other) == ([401] * 20 + [429], 401)


async def test_openai_routes_use_openais_error_format(guarded: Litestar) -> None:
    async with AsyncTestClient(guarded) as client:
        answer = await client.post("/v1/audio/speech", json={"input": "Hi"})

    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("authorization", ["Bearer ", "Bearer sk-anything", "nonsense", "Basic Og=="])
async def test_any_authorization_is_accepted_without_configured_keys(
    client: AsyncTestClient[Litestar], authorization: str
) -> None:
    assert (await client.get("/voices", headers={"authorization": authorization})).status_code == 200
