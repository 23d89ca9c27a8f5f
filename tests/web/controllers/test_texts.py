"""Texts are cleaned on every route, once, before they are planned."""

import time
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.engine.types import EngineName
from dia_server.settings import Settings
from tests.each import each
from tests.job_client import serving, submit, wait_until_finished
from tests.tones import ToneModel, loader

WRITTEN = "**It costs** $5, [S2] tHaT iS 😀 `all`."
SAID = "[S1] It costs five dollars, [S2] that is all."


def said(model: ToneModel) -> str:
    """Return the texts that `model` has spoken, as one."""
    return " ".join(utterance.text for utterance in model.seen).removesuffix(" [S1]")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/generate", {"text": WRITTEN}),
        ("/generate", {"text": WRITTEN, "stream": True}),
        ("/v1/audio/speech", {"input": WRITTEN}),
        ("/v1/audio/speech", {"input": WRITTEN, "stream_format": "sse"}),
    ],
)
async def test_each_route_says_the_cleaned_text(settings: Settings, route: str, body: dict[str, Any]) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        answer = await client.post(route, json=body)
        await answer.aread()

    assert answer.status_code == 200
    assert said(model) == SAID


async def test_a_job_says_the_cleaned_text_and_keeps_the_user_s(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        job_id = await submit(client, text=WRITTEN)
        await wait_until_finished(client, job_id)
        (line,) = (await client.get("/jobs")).json()["jobs"]

    assert said(model) == SAID
    assert line["text_preview"] == WRITTEN


def test_the_websocket_says_the_cleaned_text(settings: Settings) -> None:
    model = ToneModel()
    app = create_app(settings, Engine("preview", loader(model), max_waiting=8))
    with TestClient(app) as client:
        while not client.get("/health").json()["model_loaded"]:
            time.sleep(0.01)
        with client.websocket_connect("/ws/generate") as socket:
            socket.send_json({"type": "generate", "data": {"text": WRITTEN}})
            while socket.receive_json(timeout=5)["type"] != "complete":
                pass

    assert said(model) == SAID


async def test_a_plan_shows_what_will_be_said(settings: Settings) -> None:
    async with serving(settings, ToneModel()) as client:
        changed = (await client.post("/plan", json={"text": WRITTEN})).json()
        same = (await client.post("/plan", json={"text": "[S1] Hello,\nworld!"})).json()

    assert (changed["text"], changed["changed"]) == (SAID.removeprefix("[S1] "), True)
    assert " ".join(one["text"] for one in changed["utterances"]) == SAID
    assert (same["text"], same["changed"]) == ("[S1] Hello,\nworld!", False)


@pytest.mark.parametrize(("server", "request_"), [(True, False), (False, None)])
async def test_cleaning_can_be_turned_off(settings: Settings, server: bool, request_: bool | None) -> None:
    model = ToneModel()
    async with serving(msgspec.structs.replace(settings, normalize=server), model) as client:
        await client.post("/generate", json={"text": WRITTEN, "normalize": request_})
        await client.post("/v1/audio/speech", json={"input": WRITTEN, "normalize": request_})
        await wait_until_finished(client, await submit(client, text=WRITTEN, normalize=request_))

    raw = WRITTEN.replace(" [S2]", "")
    assert [utterance.text.replace(" [S2]", "") for utterance in model.seen] == [f"[S1] {raw} [S1]"] * 3


async def test_a_request_turns_cleaning_on(settings: Settings) -> None:
    model = ToneModel()
    async with serving(msgspec.structs.replace(settings, normalize=False), model) as client:
        await client.post("/generate", json={"text": WRITTEN, "normalize": True})

    assert said(model) == SAID


@each("text", ["```\ncode\n```", "<think>hmm</think>", "😀", "**", "---", "<!-- x -->", "#"])
async def test_a_text_that_cleans_to_nothing_is_refused(settings: Settings, text: str) -> None:
    async with serving(settings, ToneModel()) as client:
        answer = await client.post("/generate", json={"text": text})

    assert (answer.status_code, answer.json()["param"]) == (422, "text")
    assert answer.json()["detail"] == "The text holds nothing to say"


async def test_code_blocks_can_be_announced(settings: Settings) -> None:
    async with serving(msgspec.structs.replace(settings, code_blocks="announce"), ToneModel()) as client:
        plan = (await client.post("/plan", json={"text": "```\ncode\n```"})).json()

    assert plan["text"] == "Code block."


async def test_the_limit_applies_to_the_text_as_sent(settings: Settings) -> None:
    async with serving(msgspec.structs.replace(settings, max_characters=100), ToneModel()) as client:
        short = await client.post("/plan", json={"text": "$1 " * 33})
        long = await client.post("/plan", json={"text": "Hi." + "*" * 98})

    assert short.status_code == 200
    assert (long.status_code, long.json()["error_code"]) == (422, "TEXT_TOO_LONG")


@pytest.mark.parametrize(("engine", "expected"), [("preview", "hello"), ("dia", "hElLo")])
async def test_only_the_preview_gets_mixed_case_folded(
    settings: Settings, engine: EngineName, expected: str
) -> None:
    conf = msgspec.structs.replace(settings, voice_anchors="off")
    async with serving(conf, ToneModel(), engine) as client:
        plan = (await client.post("/plan", json={"text": "hElLo."})).json()

    assert plan["text"] == f"{expected}."
