"""Cross-origin access: which pages may call the server and read its responses."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import AsyncTestClient, TestClient

from dia_server.app import create_app
from dia_server.settings import Settings
from dia_server.web.middleware import hosts

Client = AsyncTestClient[Litestar]

HOST = "127.0.0.1:7860"
LOCAL_PAGE = "http://localhost:8000"
PUBLIC_PAGE = "https://page.example"
LOCAL_ORIGINS = [
    "http://127.0.0.1:7860",
    "http://localhost:8000",
    "http://sillytavern:8000",
    "http://192.168.1.4:3000",
    "https://10.0.0.7",
    "http://100.101.102.103:8000",  # Tailscale's addresses
    "http://[fd00::7]:8080",
    "http://[::1]:8080",
    "http://[::ffff:192.168.1.4]:8080",
    "https://chat.home.arpa",
    "http://tts.localhost:5173",
    "http://nas.lan:3000",
    "http://open-webui.default.svc",
    "app://obsidian.md",
    "file://",
    "capacitor://localhost",
    "chrome-extension://abcdefgh",
    "moz-extension://0a1b-2c3d",
]
FOREIGN_ORIGINS = [
    PUBLIC_PAGE,
    "null",
    "http://8.8.8.8",
    "http://[2606:4700::1111]",
    "http://[::ffff:8.8.8.8]",
    "https://page.ts.net",
    "http://nas.fritz.box",
    "http://localhost.page.example",
    "http://127.0.0.1.page.example",
    "http://127.0.0.1:7860@page.example",
    "http://page.example#.local",
    "http://a.local https://page.example",
    "page.example",
    "",
]


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "names_of_this_machine", lambda: {"workstation", "workstation.office.example"})


def app(settings: Settings, **changes: object) -> Litestar:
    return create_app(msgspec.structs.replace(settings, **changes))


async def status(client: Client, method: str, path: str, **headers: str) -> int:
    headers = {"host": HOST} | {name.replace("_", "-"): value for name, value in headers.items()}
    return (await client.request(method, path, headers=headers)).status_code


async def test_pages_of_the_local_network_and_apps_can_use_a_server_without_keys(client: Client) -> None:
    for origin in LOCAL_ORIGINS:
        answer = await client.post("/generate", json={}, headers={"host": HOST, "origin": origin})

        assert (origin, answer.status_code) == (origin, 422)
        assert answer.headers["access-control-allow-origin"] == origin
        assert "Origin" in answer.headers["vary"]


async def test_other_pages_cannot_read_or_change_anything(client: Client) -> None:
    for origin in FOREIGN_ORIGINS:
        headers = {"host": HOST, "origin": origin}
        read = await client.get("/voices", headers=headers)
        for change in (
            await client.post("/generate", json={}, headers=headers),
            await client.post("/audio_prompts/upload", files={"audio_file": b""}, headers=headers),
            await client.post("/audio_prompts/discover", headers=headers),
            await client.delete("/voice_mappings/aria", headers=headers),
            await client.put("/nowhere", headers=headers),
        ):
            assert (origin, change.status_code, change.json()["error_code"]) == (origin, 403, "FORBIDDEN")
            assert "DIA_CORS_ORIGINS" in change.json()["detail"]
            assert "access-control-allow-origin" not in change.headers

        assert read.status_code == 200
        assert "access-control-allow-origin" not in read.headers
        # without it a cache would return this response to an allowed page
        assert "Origin" in read.headers["vary"]


async def test_the_requests_host_and_port_are_the_servers_own_origin(client: Client) -> None:
    for host, origin, accepted in (
        ("workstation.office.example:7860", "http://workstation.office.example:7860", True),
        ("127.0.0.1:7860", "http://workstation.office.example:8000", True),
        ("tts.tail1234.ts.net:7860", "http://tts.tail1234.ts.net:7860", True),
        ("tts.tail1234.ts.net:7860", "http://tts.tail1234.ts.net:8000", False),
        ("tts.tail1234.ts.net", "https://tts.tail1234.ts.net", True),  # TLS ends at a proxy
        ("tts.tail1234.ts.net:443", "https://tts.tail1234.ts.net", True),
        ("TTS.tail1234.ts.net.", "https://tts.tail1234.ts.net", True),
        ("tts.tail1234.ts.net:443", "http://tts.tail1234.ts.net", False),
        ("8.8.8.8:7860", "http://8.8.8.8:7860", True),
        ("8.8.8.8:7860", "http://8.8.8.8", False),
    ):
        found = await status(client, "POST", "/generate", host=host, origin=origin)
        assert (host, origin, found) == (host, origin, 422 if accepted else 403)


async def test_sec_fetch_site_decides_only_without_an_origin(client: Client) -> None:
    sites = {"none": True, "same-origin": True, "same-site": False, "cross-site": False}
    for site, accepted in sites.items():
        assert await status(client, "POST", "/generate", sec_fetch_site=site) == (422 if accepted else 403)
        assert await status(client, "POST", "/generate", sec_fetch_site=site, origin=LOCAL_PAGE) == 422
        assert await status(client, "POST", "/generate", sec_fetch_site=site, origin=PUBLIC_PAGE) == 403
        assert await status(client, "GET", "/voices", sec_fetch_site=site) == 200


async def test_a_preflight_is_answered_without_a_key_on_any_address(settings: Settings) -> None:
    wishes = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,cache-control,content-type",
    }
    async with AsyncTestClient(app(settings, api_keys=("secret",))) as client:
        for path in ("/v1/audio/speech", "/nowhere"):
            answer = await client.options(path, headers={"origin": PUBLIC_PAGE} | wishes)

            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == "*"
            assert {"POST", "PUT", "DELETE"} <= {*answer.headers["access-control-allow-methods"].split(", ")}
            assert answer.headers["access-control-allow-headers"] == wishes["access-control-request-headers"]


async def test_a_refused_preflight_names_the_setting(client: Client) -> None:
    headers = {"host": HOST, "access-control-request-method": "PUT"}
    local = await client.options("/config", headers=headers | {"origin": LOCAL_PAGE})
    foreign = await client.options("/config", headers=headers | {"origin": PUBLIC_PAGE})

    assert (local.status_code, local.headers["access-control-allow-origin"]) == (204, LOCAL_PAGE)
    assert foreign.status_code == 403
    assert "DIA_CORS_ORIGINS" in foreign.json()["detail"]
    assert "access-control-allow-origin" not in foreign.headers


async def test_an_allowed_page_can_read_errors(settings: Settings) -> None:
    async with AsyncTestClient(
        app(settings, cors_origins=(LOCAL_PAGE,)), raise_server_exceptions=False
    ) as client:
        headers = {"origin": LOCAL_PAGE, "host": HOST}
        large = headers | {"content-type": "application/json"}
        for expected, answer in {
            200: await client.get("/voices", headers=headers),
            404: await client.get("/nowhere", headers=headers),
            405: await client.put("/generate", headers=headers),
            413: await client.post("/generate", content=b"x" * 2_000_000, headers=large),
            421: await client.get("/voices", headers=headers | {"host": "page.example"}),
            422: await client.post("/generate", json={}, headers=headers),
        }.items():  # fmt: skip
            assert answer.status_code == expected
            assert answer.headers["access-control-allow-origin"] == LOCAL_PAGE
            exposed = answer.headers["access-control-expose-headers"].lower()
            assert all(name in exposed for name in ("x-ratelimit-reset", "retry-after", "x-request-id"))


async def test_any_page_may_use_a_server_with_keys_but_needs_one(settings: Settings) -> None:
    async with AsyncTestClient(app(settings, api_keys=("secret",))) as client:
        refused = await client.post("/generate", json={}, headers={"origin": PUBLIC_PAGE})
        key = {"authorization": "Bearer secret"}
        answered = await client.post("/generate", json={}, headers=key | {"origin": PUBLIC_PAGE})

    assert (refused.status_code, answered.status_code) == (401, 422)
    assert {answer.headers["access-control-allow-origin"] for answer in (refused, answered)} == {"*"}


@pytest.mark.parametrize("keys", [(), ("secret",)], ids=["no keys", "keys"])
async def test_configured_origins_replace_the_default_rule(settings: Settings, keys: tuple[str, ...]) -> None:
    async with AsyncTestClient(app(settings, api_keys=keys, cors_origins=(PUBLIC_PAGE,))) as client:
        key = {"authorization": "Bearer secret"}
        assert await status(client, "POST", "/generate", origin=PUBLIC_PAGE, **key) == 422
        assert (
            await status(client, "POST", "/generate", origin=f"http://{HOST}", **key) == 422
        )  # its own origin
        for origin in (LOCAL_PAGE, "app://obsidian.md", "null"):
            assert await status(client, "POST", "/generate", origin=origin, **key) == 403
        assert await status(client, "POST", "/generate", sec_fetch_site="cross-site", **key) == 403


async def test_a_star_allows_every_page(settings: Settings) -> None:
    async with AsyncTestClient(app(settings, cors_origins=("*",))) as client:
        for origin in (*LOCAL_ORIGINS, *FOREIGN_ORIGINS):
            assert await status(client, "POST", "/generate", origin=origin) == 422
        assert await status(client, "POST", "/generate", sec_fetch_site="cross-site") == 422
        answer = await client.get("/voices")

    assert answer.headers["access-control-allow-origin"] == "*"
    assert "vary" not in answer.headers


async def test_refusals_on_openai_routes_use_openais_error_format(client: Client) -> None:
    answer = await client.post("/v1/audio/speech", json={}, headers={"origin": PUBLIC_PAGE})

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


def test_websockets_follow_the_same_rules(settings: Settings) -> None:
    cases: list[tuple[dict[str, str], bool]] = [
        ({"host": HOST}, True),
        ({"host": HOST, "origin": f"http://{HOST}"}, True),
        ({"host": HOST, "origin": LOCAL_PAGE}, True),
        ({"host": HOST, "origin": PUBLIC_PAGE}, False),
        ({"host": HOST, "origin": "null"}, False),
        ({"host": HOST, "sec-fetch-site": "cross-site"}, False),
        ({"host": "page.example", "origin": "http://page.example"}, False),
        ({"host": "page.example"}, False),
    ]
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for headers, welcome in cases:
            refused: AbstractContextManager[Any] = (
                nullcontext() if welcome else pytest.raises(WebSocketDisconnect)
            )
            with refused, client.websocket_connect("/ws/generate", headers=headers):
                pass
