from litestar import Litestar
from litestar.testing import AsyncTestClient

Client = AsyncTestClient[Litestar]


async def test_models(client: Client) -> None:
    listing = (await client.get("/v1/models")).json()

    assert listing["object"] == "list"
    (model,) = listing["data"]
    assert model == {"id": "dia", "object": "model", "created": model["created"], "owned_by": "nari-labs"}
    assert isinstance(model["created"], int)
    assert (await client.get("/v1/models/dia")).json() == model
    assert (await client.get("/v1/audio/models")).json() == {"models": [{"id": "dia"}]}


async def test_voices_have_the_fields_that_each_client_reads(client: Client) -> None:
    for_open_webui = (await client.get("/v1/audio/voices")).json()["voices"][0]
    for_tts_webui = (await client.get("/v1/audio/voices/dia")).json()["voices"][0]

    assert for_open_webui == {
        "id": "aria",
        "name": "Aria",
        "voice_id": "aria",
        "preview_url": "/voices/aria/preview",
    }
    assert for_tts_webui == for_open_webui | {"value": "aria", "label": "Aria"}
