"""ElevenLabs' routes for dialogues, as its SDK for Python calls them."""

import base64
import io
import json
from typing import Any

import av
import msgspec
import pytest

from dia_server.settings import Settings
from tests.cloning import CloningModel
from tests.each import each
from tests.job_client import Client, serving, wait_until_finished
from tests.recordings import wav_file
from tests.stage import staged
from tests.tones import ToneModel

ROUTE = "/v1/text-to-dialogue"
INPUTS = [
    {"text": "# Who is there?", "voice_id": "aria"},
    {"text": "[sighs] Only me.\n\nAnd $5.", "voice_id": "kai"},
    {"text": "And me!", "voice": "Zara"},
    {"text": "Come in, all of you.", "voice_id": "aria"},
]
SAID = [
    ("aria+kai", "[S1] Who is there? [S2] (sighs) Only me. And five dollars. [S1]"),
    ("aria+zara", "[S2] And me! [S1] Come in, all of you. [S2]"),
]
"""Voices and text of the segments."""
SDK: dict[str, Any] = {
    "inputs": INPUTS,
    "model_id": "eleven_v3",
    "language_code": "en",
    "settings": {"stability": 0.5},
    "pronunciation_dictionary_locators": None,
    "seed": 7,
    "apply_text_normalization": "auto",
}
"""Body that the SDK sends if each parameter is given."""


def codec_of(file: bytes) -> str:
    with av.open(io.BytesIO(file), "r") as audio:
        return audio.streams.audio[0].codec_context.name


async def test_the_sdk_s_request_is_spoken(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        params = {"output_format": "mp3_22050_32", "enable_logging": "false"}
        answer = await client.post(ROUTE, params=params, json=SDK)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    assert answer.headers["x-seed"] == "7"
    assert codec_of(answer.content).startswith("mp3")
    assert [(one.voice, one.text) for one in model.seen] == SAID


async def test_no_turn_swallows_another(settings: Settings) -> None:
    model = ToneModel()
    texts = ("Look.\n```\nx = 1", "<think> Hm", "Nice.\n```", "Bye.")
    inputs = [{"text": text, "voice_id": "aria"} for text in texts]
    async with serving(settings, model) as client:
        await client.post(ROUTE, json={"inputs": inputs})

    assert [one.text for one in model.seen] == ["[S1] Look. Nice. Bye."]


async def test_the_plan_is_what_is_spoken(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        plan = (await client.post(f"{ROUTE}/plan", json=SDK)).json()
        plain = (
            await client.post(f"{ROUTE}/plan", json={"inputs": [{"text": "Hi.", "voice_id": "kai"}]})
        ).json()
        assert model.seen == []
        await client.post(ROUTE, json=SDK)

    assert [("+".join(one["voices"].values()), one["text"]) for one in plan["utterances"]] == [
        (one.voice, one.text.removesuffix(" [S1]").removesuffix(" [S2]")) for one in model.seen
    ]
    assert (plan["changed"], plain["changed"]) == (True, False)


@pytest.mark.parametrize("body", [{"inputs": INPUTS}, SDK])
async def test_a_streamed_dialogue_is_the_same(client: Client, body: dict[str, Any]) -> None:
    whole = await client.post(ROUTE, params={"output_format": "pcm_24000"}, json=body)
    streamed = await client.post(f"{ROUTE}/stream", params={"output_format": "pcm_24000"}, json=body)
    asked = await client.post(ROUTE, json=body | {"stream": True, "response_format": "pcm"})

    assert whole.headers["content-type"] == streamed.headers["content-type"]
    assert "x-retries" in whole.headers
    assert "x-retries" not in streamed.headers
    assert whole.content == streamed.content == asked.content
    assert len(whole.content) > 24_000 * 2 * 4


@pytest.mark.parametrize(
    ("output_format", "codec"),
    [(None, "mp3"), ("mp3_44100_128", "mp3"), ("opus_48000_64", "opus"), ("wav_16000", "pcm_s16le")],
)
async def test_formats_have_elevenlabs_names(client: Client, output_format: str | None, codec: str) -> None:
    params = {} if output_format is None else {"output_format": output_format}
    answer = await client.post(ROUTE, params=params, json={"inputs": INPUTS[:1]})

    assert codec_of(answer.content).startswith(codec)


async def test_a_dialogue_is_a_job(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        accepted = await client.post(f"{ROUTE}?async_mode=true", json=SDK | {"timestamps": "segment"})
        job_id = accepted.json()["job_id"]
        job = await wait_until_finished(client, job_id)
        result = await client.get(f"/jobs/{job_id}/result")

    assert job["status"] == "completed"
    assert result.headers["content-type"] == "audio/mpeg"
    assert [(one.voice, one.text) for one in model.seen] == SAID


async def test_the_websocket_takes_dialogues(client: Client) -> None:
    data = {"inputs": INPUTS, "response_format": "pcm", "stream": True}
    with await client.websocket_connect("/ws/generate") as socket:
        socket.send_json({"type": "dialogue", "data": data, "request_id": "a"})
        sent = b""
        while (message := socket.receive_json(timeout=10))["type"] != "complete":
            assert message["request_id"] == "a"
            if message["type"] == "audio":
                sent += socket.receive_bytes(timeout=5)
        socket.send_json({"type": "dialogue", "data": {"inputs": [{"text": "Hi", "voice": "nobody"}]}})
        refused = socket.receive_json(timeout=5)

    whole = await client.post(ROUTE, json={"inputs": INPUTS, "response_format": "pcm"})
    assert sent == whole.content
    assert (refused["error_code"], refused["param"]) == ("INVALID_VOICE_ID", "inputs")


async def test_timestamps_name_the_voice_of_each_turn(client: Client) -> None:
    body = {"inputs": INPUTS, "timestamps": "turn"}
    answer = (await client.post(ROUTE, json=body)).json()

    assert [(one["speaker"], one["voice"], one["text"]) for one in answer["timestamps"]] == [
        ("S1", "aria", "Who is there?"),
        ("S2", "kai", "Only me. And five dollars."),
        ("S3", "zara", "And me!"),
        ("S1", "aria", "Come in, all of you."),
    ]
    streamed = await client.post(f"{ROUTE}/stream", json=body)
    events = [json.loads(line.removeprefix("data: ")) for line in streamed.text.split("\n\n") if line]
    assert [one for event in events for one in event.get("timestamps", ())] == answer["timestamps"]


async def test_normalization_has_elevenlabs_name(client: Client) -> None:
    async def said(**fields: Any) -> list[str]:
        body = {"inputs": [{"text": "It costs $5.", "voice_id": "aria"}], "timestamps": "turn"} | fields
        return [one["text"] for one in (await client.post(ROUTE, json=body)).json()["timestamps"]]

    assert await said() == await said(apply_text_normalization="on") == ["It costs five dollars."]
    assert await said(apply_text_normalization="off") == ["It costs $5."]
    assert await said(apply_text_normalization="off", normalize=True) == ["It costs five dollars."]


@each(
    ("body", "params", "refused"),
    [
        ({"inputs": []}, {}, (422, "inputs")),
        ({"inputs": [{"text": "Hi"}]}, {}, (422, "inputs")),
        ({"inputs": [{"text": "Hi", "voice_id": "nobody"}]}, {}, (404, "inputs")),
        ({"inputs": [*INPUTS, {"text": "Hi", "voice_id": "nobody"}]}, {}, (404, "inputs")),
        ({"inputs": [{"text": "Hi", "voice_id": "a]b"}]}, {}, (404, "inputs")),
        ({"inputs": [{"text": " ", "voice_id": "aria"}]}, {}, (422, "inputs")),
        ({"inputs": [{"text": "x" * 5000, "voice_id": "aria"}]}, {}, (422, "inputs")),
        ({"inputs": [{"text": "[S3] Hi", "voice_id": "aria"}]}, {}, (422, "voices")),
        ({"inputs": [{"text": "Hi", "voice_id": f"v{n}"} for n in range(17)]}, {}, (404, "inputs")),
        ({"inputs": INPUTS}, {"output_format": "pcm_16000"}, (422, "output_format")),
        ({"inputs": INPUTS}, {"output_format": "ulaw_8000"}, (422, "output_format")),
    ],
)
async def test_what_cannot_be_spoken_is_refused(
    client: Client, body: dict[str, Any], params: dict[str, str], refused: tuple[int, str]
) -> None:
    routes = [ROUTE, f"{ROUTE}/stream", f"{ROUTE}?async_mode=true", *([] if params else [f"{ROUTE}/plan"])]
    for route in routes:
        answer = await client.post(route, json=body, params=params)
        assert (answer.status_code, answer.json()["error"]["param"]) == refused


async def test_a_reference_replaces_the_first_voice_s_recording(settings: Settings) -> None:
    reference = base64.b64encode(wav_file(1.0, pitch=180.0)).decode()
    inputs = [{"text": "One.", "voice_id": "Anna"}, {"text": "Two.", "voice_id": "ben"}]
    body = {"inputs": inputs, "ref_audio": reference, "ref_text": "My words."}
    model = CloningModel()
    async with staged(settings, model) as stage:
        assert (await stage.client.post(ROUTE, json=body)).status_code == 200
        accepted = await stage.client.post(f"{ROUTE}?async_mode=true", json=body)
        assert (await wait_until_finished(stage.client, accepted.json()["job_id"]))["status"] == "completed"

    for said in model.seen:
        assert said.voice == "anna+ben"
        assert said.prompt is not None
        assert said.prompt.transcript == "[S1] My words. [S2] I am ben."


async def test_elevenlabs_header_has_the_key(settings: Settings) -> None:
    settings = msgspec.structs.replace(settings, api_keys=("secret",))
    async with serving(settings, ToneModel()) as client:
        schemes = (await client.get("/openapi.json")).json()["components"]["securitySchemes"]
        wrong = await client.post(ROUTE, json=SDK, headers={"xi-api-key": "wrong"})
        right = await client.post(ROUTE, json=SDK, headers={"xi-api-key": "secret"})

    assert (wrong.status_code, right.status_code) == (401, 200)
    assert schemes["xi-api-key"] == {"type": "apiKey", "in": "header", "name": "xi-api-key"}
