import msgspec
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server import __version__
from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.settings import Settings
from dia_server.web.controllers.server import spoken_duration
from tests.tones import Gate, ToneModel, failing_loader
from tests.waiting import until

Client = AsyncTestClient[Litestar]


async def test_health_has_the_documented_fields_and_the_engine(client: Client) -> None:
    health = (await client.get("/health")).json()

    assert health.keys() >= {"gpu_available", "gpu_count", "worker_count", "active_jobs", "uptime"}
    assert (health["status"], health["version"], health["model_loaded"]) == ("healthy", __version__, True)
    assert (health["engine"], health["loading"], health["error"]) == ("preview", 100, None)
    assert health["gpu_available"] == (health["gpu_count"] > 0)
    assert (health["active_jobs"], health["max_characters"]) == (0, 4096)


async def test_health_answers_while_the_model_loads_and_when_it_cannot(settings: Settings) -> None:
    gate = Gate()
    engine = Engine("dia", failing_loader(gate), max_waiting=1)
    async with AsyncTestClient(create_app(settings, engine)) as client:
        health = (await client.get("/health")).json()
        assert (health["status"], health["model_loaded"], health["engine"]) == ("loading", False, "dia")
        refused = await client.post("/generate", json={"text": "Hi"})
        assert (refused.status_code, refused.json()["error_code"]) == (503, "MODEL_NOT_LOADED")
        assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("5", "true")
        gate.open()
        await until(lambda: engine.error is not None)
        health = (await client.get("/health")).json()
        assert (health["status"], health["error"]) == ("unhealthy", "disk on fire")
        assert health["retry"] == "/model/load"


async def test_loading_can_be_retried_without_a_restart(settings: Settings) -> None:
    gate = Gate()
    outcomes = iter([OSError("no network"), OSError("disk full"), None])

    def load(_: object) -> ToneModel:
        if (failure := next(outcomes)) is not None:
            raise failure
        gate()
        return ToneModel()

    engine = Engine("dia", load, max_waiting=1)
    async with AsyncTestClient(
        create_app(msgspec.structs.replace(settings, voice_anchors="off"), engine)
    ) as client:

        async def failed() -> bool:
            return bool((await client.get("/health")).json()["error"])

        await until(failed)
        await client.post("/model/load")
        await until(failed)
        assert (await client.get("/health")).json()["error"] == "disk full"
        answer = await client.post("/model/load")
        begun = answer.json()
        assert (answer.status_code, begun["status"]) == (202, "loading")
        assert (begun["error"], begun["retry"]) == (None, None)
        gate.open()

        async def healthy() -> bool:
            return bool((await client.get("/health")).json()["status"] == "healthy")

        await until(healthy)
        assert (await client.post("/generate", json={"text": "Hi"})).status_code == 200
        again = (await client.post("/model/load")).json()  # has no effect now
        assert (again["status"], again["retry"]) == ("healthy", None)


def test_durations_are_written_as_in_the_reference() -> None:
    assert spoken_duration(2 * 3600 + 45 * 60 + 12.9) == "2h 45m 12s"
    assert spoken_duration(45 * 60 + 23) == "45m 23s"
    assert spoken_duration(0) == "0s"
