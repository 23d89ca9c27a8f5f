"""Allowed host names of a server without keys: only those that an attacker cannot register."""

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.settings import Settings
from dia_server.web.middleware import hosts

Client = AsyncTestClient[Litestar]

ACCEPTED = [
    "",
    "127.0.0.1",
    "127.0.0.1:7860",
    "192.168.1.4:7860",
    "8.8.8.8",
    "[::1]:7860",
    "[2001:db8::7]",
    "[fe80::1%25eth0]:7860",
    "localhost:7860",
    "LOCALHOST",
    "dia-server:7860",
    "dia_server",
    "localhost.",
    "tts.localhost",
    "nas.local:7860",
    "nas.internal",
    "nas.lan",
    "nas.home",
    "nas.home.arpa",
    "nas.localdomain",
    "tts.default.svc",
    "tts.default.svc.cluster.local",
    "nas.tail1234.ts.net",
    "workstation.office.example:7860",
]
REFUSED = [
    "page.example",
    "page.example:7860",
    "page.example.",
    "127.0.0.1.page.example",
    "local.page.example",
    "pagelocal.example",
    "nas.fritz.box",
    "user@127.0.0.1",
    "127.0.0.1:7860:80",
    "a b",
    "[::1",
    "page.example/.local",
]


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Count the lookups of the machine's names."""
    lookups: list[None] = []

    def look_up() -> set[str]:
        lookups.append(None)
        return {"workstation", "workstation.office.example"}

    monkeypatch.setattr(hosts, "names_of_this_machine", look_up)
    return lookups


def app(settings: Settings, **changes: object) -> Litestar:
    return create_app(msgspec.structs.replace(settings, **changes))


async def test_names_of_the_machine_and_its_network_are_allowed(client: Client) -> None:
    for host in ACCEPTED:
        answer = await client.get("/voices", headers={"host": host})
        assert (host, answer.status_code) == (host, 200)


async def test_names_that_can_be_registered_are_refused(client: Client) -> None:
    for host in REFUSED:
        for answer in (
            await client.get("/voices", headers={"host": host}),
            await client.get("/", headers={"host": host}),
            await client.get("/nowhere", headers={"host": host}),
            await client.post("/generate", json={}, headers={"host": host, "origin": f"http://{host}"}),
        ):
            assert (host, answer.status_code) == (host, 421)
            assert answer.json()["error_code"] == "MISDIRECTED_REQUEST"
            assert "DIA_ALLOWED_HOSTS" in answer.json()["detail"]


async def test_openai_routes_use_openais_error_format(client: Client) -> None:
    answer = await client.get("/v1/models", headers={"host": "page.example"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "misdirected_request")


async def test_the_names_of_the_machine_are_looked_up_once_and_only_if_needed(
    client: Client, this_machine: list[None]
) -> None:
    await client.get("/voices", headers={"host": "nas.local"})
    assert len(this_machine) == 0
    for _ in range(3):
        await client.get("/voices", headers={"host": "page.example"})
    assert len(this_machine) == 1


async def test_a_configured_host_is_allowed_and_its_pages_are_local(settings: Settings) -> None:
    async with AsyncTestClient(app(settings, allowed_hosts=("NAS.fritz.box",))) as client:
        for host in ("nas.fritz.box:7860", "nas.fritz.box", "localhost:7860"):
            for origin in ("http://nas.fritz.box:7860", "http://nas.fritz.box:8000"):
                answer = await client.post("/generate", json={}, headers={"host": host, "origin": origin})
                assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (422, origin)
        assert (await client.get("/voices", headers={"host": "other.fritz.box"})).status_code == 421


async def test_a_star_allows_every_host_but_no_foreign_page(settings: Settings) -> None:
    async with AsyncTestClient(app(settings, allowed_hosts=("*",))) as client:
        for host in (*ACCEPTED, "page.example", "nas.fritz.box"):
            assert (await client.get("/voices", headers={"host": host})).status_code == 200
        foreign = {"host": "tts.example", "origin": "https://page.example"}
        assert (await client.post("/generate", json={}, headers=foreign)).status_code == 403


async def test_every_host_is_allowed_with_keys(settings: Settings) -> None:
    async with AsyncTestClient(app(settings, api_keys=("secret",))) as client:
        headers = {"host": "page.example", "authorization": "Bearer secret"}
        assert (await client.get("/voices", headers=headers)).status_code == 200
