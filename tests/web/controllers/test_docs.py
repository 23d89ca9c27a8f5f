import json
import re
from typing import Any, get_args

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.vocabulary import SOUND_PATTERN, SOUNDS
from dia_server.web.controllers.docs import PAGES, STATIC
from dia_server.web.websocket_messages import Cancel, Dialogue, Generate, Outgoing

Client = AsyncTestClient[Litestar]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_page_loads_only_files_of_this_server(client: Client, page: str) -> None:
    html = (await client.get(page)).text
    assets = re.findall(r"""(?:src|href|spec-url)="([^"]+)\"""", html)

    assert len(assets) >= 3
    for asset in assets:
        assert (await client.get(asset)).status_code == 200


@pytest.mark.parametrize("host", ["cdn.", "unpkg", "fonts.g", "petstore"])
def test_no_asset_loads_from_another_host(host: str) -> None:
    for path in (*STATIC.rglob("*.*"), *PAGES.iterdir()):
        assert host.encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize(
    "address",
    ["/", "/static/studio/js/main.js", "/static/studio/js/vocabulary.js", "/static/docs/swagger-ui.css"],
)
async def test_a_cached_file_is_confirmed_with_304(client: Client, address: str) -> None:
    first = await client.get(address)
    again = await client.get(address, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    changed = await client.get(address, headers={"If-None-Match": '"other"'})

    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (changed.status_code, changed.content) == (200, first.content)


async def test_the_page_gets_the_names_of_sounds_from_the_server(client: Client) -> None:
    script = await client.get("/static/studio/js/vocabulary.js")

    assert script.headers["content-type"].startswith("text/javascript")
    constants = dict(re.findall(r"export const (\w+) = (.+);", script.text))
    assert json.loads(constants["SOUNDS"]) == [*SOUNDS]
    assert json.loads(constants["SOUND_PATTERN"]) == SOUND_PATTERN


async def test_the_studio_is_always_sent_with_its_policy(client: Client) -> None:
    assert "default-src 'self'" in (await client.get("/")).headers["content-security-policy"]
    assert (await client.get("/static/studio/index.html")).status_code == 404


async def test_every_response_has_the_security_headers(client: Client) -> None:
    for answer in (
        await client.get("/"),
        await client.get("/docs"),
        await client.get("/redoc"),
        await client.get("/static/studio/js/main.js"),
        await client.get("/health"),
        await client.post("/generate", json={"text": "Hi"}),
        await client.options("/generate"),
        await client.get("/nowhere"),
        await client.put("/generate"),
        await client.get("/", headers={"host": "page.example"}),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "cross-origin-resource-policy" not in answer.headers


async def test_every_route_is_described(client: Client) -> None:
    description: dict[str, Any] = (await client.get("/openapi.json")).json()

    assert description["paths"].keys() >= {
        "/generate",
        "/v1/audio/speech",
        "/v1/audio/voices",
        "/v1/audio/voices/{name}",
        "/v1/audio/models",
        "/v1/models",
        "/v1/models/{model}",
        "/voices",
        "/voice_mappings",
        "/voice_mappings/{voice_id}",
        "/health",
    }
    request = description["components"]["schemas"]["GenerateRequest"]
    assert request["required"] == ["text"]
    assert request["properties"]["text"]["maxLength"] == 4096
    assert request["properties"]["voice_id"]["default"] == "aria"
    top_p = next(kind for kind in request["properties"]["top_p"]["anyOf"] if kind["type"] == "number")
    assert (top_p["minimum"], top_p["maximum"]) == (0.0, 1.0)
    answers = description["paths"]["/generate"]["post"]["responses"]
    assert answers.keys() == {"200", "400", "401", "404", "408", "413", "415", "422", "429", "500", "503"}
    assert "audio/mpeg" in answers["200"]["content"]
    assert answers["429"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


async def test_every_message_of_the_websocket_is_described(client: Client) -> None:
    text = (await client.get("/openapi.json")).json()["info"]["description"]

    shown = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    kinds = {kind.__struct_config__.tag: kind for kind in (Generate, Dialogue, Cancel, *get_args(Outgoing))}
    assert {message["type"] for message in shown} == kinds.keys()
    for message in shown:
        msgspec.convert(message, kinds[message["type"]])


async def test_routes_that_write_to_the_database_document_503(client: Client) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]

    for path, methods in paths.items():
        for method in methods.keys() & {"post", "put", "delete"}:
            if path != "/plan":
                assert "503" in methods[method]["responses"], f"{method} {path}"


async def test_all_schema_references_resolve(client: Client) -> None:
    text = (await client.get("/openapi.json")).text

    for name in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
        assert name in (await client.get("/openapi.json")).json()["components"]["schemas"]
