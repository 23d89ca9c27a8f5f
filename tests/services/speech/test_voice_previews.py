import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from dia_server.composition import Services
from dia_server.engine.engine import Engine
from dia_server.errors import RateLimitExceeded
from dia_server.lifespan import run_services
from dia_server.services.speech import VoicePreviews
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.tones import Gate, ToneModel, loader
from tests.waiting import until


def nothing() -> None: ...


@dataclass(frozen=True)
class Studio:
    services: Services
    model: ToneModel

    def previews(self, cache_size: int) -> VoicePreviews:
        return VoicePreviews(self.services.speech, cache_size=cache_size)


@asynccontextmanager
async def open_studio(settings: Settings, model: ToneModel) -> AsyncIterator[Studio]:
    services = Services(settings, (), Engine("preview", loader(model), max_waiting=64), Timing())
    async with run_services(services):
        await until(lambda: services.engine.ready)
        yield Studio(services, model)


async def test_concurrent_requests_generate_a_preview_once(settings: Settings) -> None:
    gate = Gate()
    async with open_studio(settings, ToneModel(before_step=gate)) as studio:
        previews = studio.services.voice_previews
        requests = [asyncio.create_task(previews.get("aria", "", nothing)) for _ in range(16)]
        await until(gate.entered.is_set)
        gate.open()
        files = await asyncio.gather(*requests)

    assert len(set(files)) == 1
    assert len(studio.model.seen) == 1


async def test_if_the_first_client_leaves_the_next_one_gets_its_preview(settings: Settings) -> None:
    gate = Gate()
    async with open_studio(settings, ToneModel(before_step=gate)) as studio:
        previews = studio.services.voice_previews
        first, second = (asyncio.create_task(previews.get("aria", "", nothing)) for _ in range(2))
        await until(gate.entered.is_set)
        first.cancel()
        gate.open()
        assert (await second)[:4] == b"RIFF"

    assert first.cancelled()
    assert len(studio.model.seen) == 2


async def test_a_refused_generation_leaves_the_preview_to_the_next_request(settings: Settings) -> None:
    def refuse() -> None:
        raise RateLimitExceeded("too many")

    async with open_studio(settings, ToneModel()) as studio:
        previews = studio.services.voice_previews
        with pytest.raises(RateLimitExceeded):
            await previews.get("aria", "", refuse)
        assert studio.model.seen == []
        assert (await previews.get("aria", "", nothing))[:4] == b"RIFF"


async def test_the_least_recently_heard_preview_is_dropped_first(settings: Settings) -> None:
    async with open_studio(settings, ToneModel()) as studio:
        size = len(await studio.services.voice_previews.get("aria", "", nothing))
        studio.model.seen.clear()
        previews = studio.previews(cache_size=2 * size)
        for voice in ("aria", "atlas", "aria", "kai", "aria", "atlas"):
            await previews.get(voice, "", nothing)

    assert [one.voice for one in studio.model.seen] == ["aria", "atlas", "kai", "atlas"]
