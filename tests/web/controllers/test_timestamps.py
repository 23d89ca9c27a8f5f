import asyncio
import base64
import io
import json
from typing import Any

import av
import numpy as np
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from msgspec.structs import replace

from dia_server.app import create_app
from dia_server.settings import Settings
from tests.job_client import loaded
from tests.live.server import Server
from tests.live.websocket import WebSocketClient
from tests.sounds import onsets
from tests.waiting import until

Client = AsyncTestClient[Litestar]

TEXT = (
    "[S1] One sentence is here. Another one, with a comma, follows! [pause:1s] "
    "[S2] And a third, said by somebody else? [S1] Yes."
)


async def job(client: Client, **body: Any) -> str:
    body = {"text": TEXT, "voice_id": "aria"} | body
    accepted = (await client.post("/generate?async_mode=true", json=body)).json()
    job_id = str(accepted["job_id"])
    while (await client.get(f"/jobs/{job_id}")).json()["status"] in {"pending", "processing"}:
        await asyncio.sleep(0.02)
    return job_id


async def whole(client: Client, **body: Any) -> tuple[np.ndarray[Any, Any], list[Any]]:
    answer = (await client.post("/generate", json={"text": TEXT} | body)).json()
    samples = np.frombuffer(base64.b64decode(answer["audio"])[44:], np.int16).astype(np.float32) / 32768
    return samples, answer["timestamps"]


MINUTE = pytest.param(2, id="one minute")
TEN_MINUTES = pytest.param(20, id="ten minutes", marks=pytest.mark.full)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.3])
@pytest.mark.parametrize("rounds", [MINUTE, TEN_MINUTES])
async def test_sentences_are_where_the_sound_is(settings: Settings, speed: float, rounds: int) -> None:
    turns = "[S1] One is here. Two goes on, as it did before. [S2] Three comes next. [S1] Four is the end. "
    text = ("[pause:1.5s] " + turns * 4) * rounds
    app = create_app(replace(settings, max_characters=80_000))
    async with AsyncTestClient(app, raise_server_exceptions=False) as client:
        await until(lambda: loaded(client))
        samples, timestamps = await whole(client, text=text, speed=speed, timestamps="sentence")

    assert len(samples) / 44_100 > 29 * rounds / speed
    assert len(timestamps) == text.count(". ")
    starts, ends = np.array(onsets(samples)).T
    errors = [
        min(abs(places - one[name]))
        for one in timestamps
        for name, places in (("start", starts), ("end", ends))
    ]
    assert np.median(errors) < 0.02
    assert max(errors) < 0.06


@pytest.mark.parametrize(
    ("granularity", "count"), [("segment", 2), ("turn", 3), ("sentence", 4), ("word", 18)]
)
async def test_a_job_keeps_what_its_events_told(client: Client, granularity: str, count: int) -> None:
    job_id = await job(client, timestamps=granularity)

    kept = (await client.get(f"/jobs/{job_id}/timestamps")).json()

    assert kept["granularity"] == granularity
    assert len(kept["timestamps"]) == count
    starts = [one["start"] for one in kept["timestamps"]]
    assert starts == sorted(starts)
    assert all(one["start"] < one["end"] for one in kept["timestamps"])
    body = {"text": TEXT, "voice_id": "aria", "timestamps": granularity}
    assert (await client.post("/generate", json=body)).json()["timestamps"] == kept["timestamps"]
    answer = await client.post("/generate", json=body | {"stream": True})
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    told = [one for event in events for one in event.get("timestamps", ())]
    assert told == kept["timestamps"]
    spoken = {**body, "input": TEXT, "response_format": "mp3"}
    assert (await client.post("/v1/audio/speech", json=spoken)).json()["timestamps"] == kept["timestamps"]


async def test_each_entry_has_its_text_and_voice(client: Client) -> None:
    _, turns = await whole(client, timestamps="turn")

    assert [(one["text"], one["speaker"]) for one in turns] == [
        ("One sentence is here. Another one, with a comma, follows!", "S1"),
        ("And a third, said by somebody else?", "S2"),
        ("Yes.", "S1"),
    ]
    assert turns[0]["voice"] == "aria" != turns[1]["voice"]
    assert not any(one["estimated"] for one in turns)
    assert turns[1]["start"] - turns[0]["end"] == pytest.approx(1.06, abs=0.05)


async def test_subtitles_are_read_by_other_programs(client: Client) -> None:
    job_id = await job(
        client, text="[S1] Two < three & so on. [S2] Is it?", normalize=False, timestamps="turn"
    )
    kept = (await client.get(f"/jobs/{job_id}/timestamps")).json()["timestamps"]

    for name, kind in (("srt", "srt"), ("vtt", "webvtt")):
        answer = await client.get(f"/jobs/{job_id}/subtitles.{name}")
        with av.open(io.BytesIO(answer.content), "r", format=kind) as file:
            packets = [packet for packet in file.demux() if packet.size]
        base = float(packets[0].time_base or 0)
        found = [(float(packet.pts or 0) * base, float(packet.duration or 0) * base) for packet in packets]
        assert [start for start, _ in found] == pytest.approx([one["start"] for one in kept], abs=0.002)
        assert [sum(one) for one in found] == pytest.approx([one["end"] for one in kept], abs=0.002)
    assert "<v aria>Two &lt; three &amp; so on.</v>" in answer.text


async def test_missing_timestamps_and_wrong_values_are_refused(client: Client) -> None:
    job_id = await job(client)

    missing = await client.get(f"/jobs/{job_id}/subtitles.srt")
    wrong = await client.post("/generate", json={"text": "Hi", "timestamps": "letter"})

    assert (missing.status_code, missing.json()["error_code"]) == (404, "NOT_FOUND")
    assert "`timestamps`" in missing.json()["detail"]
    assert (wrong.status_code, wrong.json()["param"]) == (422, "timestamps")


async def test_the_socket_tells_what_the_job_keeps(server: Server) -> None:
    with WebSocketClient(server.port, "/ws/generate") as socket:
        data = {"text": TEXT, "timestamps": "word", "stream": True}
        socket.send({"type": "generate", "data": data, "request_id": "a"})
        told: list[Any] = []
        message: Any = {"type": ""}
        while message["type"] != "complete":
            received = socket.receive()
            message = message if isinstance(received, bytes) else received
            if not isinstance(received, bytes) and message["type"] == "timestamps":
                assert message["request_id"] == "a"
                told += message["timestamps"]

    assert told == server.get(f"/jobs/{message['job_id']}/timestamps").json()["timestamps"]
