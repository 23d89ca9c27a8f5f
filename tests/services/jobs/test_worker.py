import pytest
from litestar.testing import TestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.services.speech.segment import Segment
from dia_server.settings import Settings
from tests.garbage import until_freed, without_collector
from tests.job_client import change, serving, submit, wait_until_finished
from tests.tones import Gate, ToneModel, loader
from tests.waiting import wait_until


def fail() -> None:
    raise RuntimeError("out of luck")


async def test_a_failed_job_frees_its_audio_without_the_garbage_collector(settings: Settings) -> None:
    async with serving(settings, ToneModel(before_step=fail)) as client:
        with without_collector():
            assert (await wait_until_finished(client, await submit(client)))["status"] == "failed"
            await until_freed(Segment)


def test_a_job_that_was_taken_from_a_silent_server_may_come_back_to_it(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    app = create_app(settings, Engine("preview", loader(ToneModel(before_step=gate)), max_waiting=8))
    with TestClient(app) as client, client.websocket_connect("/ws/generate") as socket:
        wait_until(lambda: client.get("/health").json()["model_loaded"])
        socket.send_json({"type": "generate", "data": {"text": "Hello"}})
        job_id = socket.receive_json(timeout=10)["job_id"]
        gate.entered.wait(10)
        change(settings, "UPDATE jobs SET status = 'pending', owner = NULL")  # as another server does

        other = client.post("/generate?async_mode=true", json={"text": "Hello"}).json()["job_id"]
        wait_until(lambda: client.get(f"/jobs/{job_id}").json()["status"] == "processing")
        gate.open()

        messages = [socket.receive_json(timeout=10)]
        while messages[-1]["type"] not in {"complete", "cancelled"}:
            messages.append(socket.receive_json(timeout=10))
        jobs = [f"/jobs/{one}" for one in (job_id, other)]
        wait_until(lambda: {client.get(job).json()["status"] for job in jobs} == {"completed"})

    assert messages[-1]["type"] == "cancelled"
    assert [record for record in caplog.records if record.name == "asyncio"] == []
