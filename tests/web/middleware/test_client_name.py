"""The engine gets the client of each request: its API key if keys are configured, else its address."""

import msgspec
from litestar.testing import TestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.engine.types import Flow
from dia_server.settings import Settings
from tests.job_client import HELLO, serving, submit, wait_until_finished
from tests.tones import ToneModel, loader

SPEECH = {"input": "Hello!", "voice": "aria"}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def flows(settings: Settings, *headers: dict[str, str]) -> list[Flow]:
    """Return the flow of a request to each generating route, with each of `headers`."""
    model = ToneModel()
    async with serving(settings, model) as client:
        for shown in headers:
            await client.post("/generate", json=HELLO, headers=shown)
            await client.post("/generate", json=HELLO | {"stream": True}, headers=shown)
            await client.post("/v1/audio/speech", json=SPEECH, headers=shown)
    return [utterance.flow for utterance in model.seen]


async def test_without_keys_a_client_is_its_address(settings: Settings) -> None:
    seen = await flows(settings, bearer("any"), bearer("other"))

    assert [flow.client for flow in seen] == ["testclient"] * 6
    assert len({flow.request for flow in seen}) == 6


async def test_with_keys_a_client_is_its_key_without_revealing_it(settings: Settings) -> None:
    guarded = msgspec.structs.replace(settings, api_keys=("first-key", "second-key"))

    names = [flow.client for flow in await flows(guarded, bearer("first-key"), bearer("second-key"))]

    assert names[:3] == [names[0]] * 3
    assert names[3:] == [names[3]] * 3
    assert names[0] != names[3]
    assert not {"first-key", "second-key"} & set(names)


def test_a_websockets_generations_belong_to_its_client(settings: Settings) -> None:
    model = ToneModel()
    guarded = msgspec.structs.replace(settings, api_keys=("first-key",))
    app = create_app(guarded, Engine("preview", loader(model), max_waiting=8))
    with TestClient(app) as client:
        while not client.get("/health").json()["model_loaded"]:
            pass
        client.post("/generate", json=HELLO, headers=bearer("first-key"))
        with client.websocket_connect("/ws/generate?api_key=first-key") as socket:
            socket.send_json({"type": "generate", "data": HELLO})
            while socket.receive_json(timeout=5)["type"] == "progress":
                pass

    http, live = [utterance.flow for utterance in model.seen]
    assert live.client == http.client
    assert live.request != http.request


async def test_a_job_has_no_client(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        assert (await wait_until_finished(client, await submit(client)))["status"] == "completed"

    assert [utterance.flow.client for utterance in model.seen] == [""]
