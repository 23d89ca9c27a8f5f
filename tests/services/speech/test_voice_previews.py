import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import msgspec
import pytest

from dia_server.composition import Services
from dia_server.engine.engine import Engine
from dia_server.engine.types import EngineName, VoicePrompt
from dia_server.errors import RateLimitExceeded
from dia_server.lifespan import run_services
from dia_server.services.speech import VoicePreviews
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.cloning import CloningModel
from tests.libraries import anchor_file
from tests.tones import Gate, ToneModel, loader
from tests.waiting import until


async def nothing() -> None: ...


@dataclass(frozen=True)
class Studio:
    services: Services
    model: ToneModel

    @property
    def last_prompt(self) -> VoicePrompt:
        prompt = self.model.seen[-1].prompt
        assert prompt is not None
        return prompt

    def previews(self, cache_size: int) -> VoicePreviews:
        return VoicePreviews(self.services.speech, cache_size=cache_size)


@asynccontextmanager
async def open_studio(
    settings: Settings, model: ToneModel, engine: EngineName = "preview"
) -> AsyncIterator[Studio]:
    services = Services(settings, (), Engine(engine, loader(model), max_waiting=64), Timing())
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
    async def refuse() -> None:
        raise RateLimitExceeded("too many")

    async with open_studio(settings, ToneModel()) as studio:
        previews = studio.services.voice_previews
        with pytest.raises(RateLimitExceeded):
            await previews.get("aria", "", refuse)
        assert studio.model.seen == []
        assert (await previews.get("aria", "", nothing))[:4] == b"RIFF"


async def test_another_anchor_makes_a_new_preview(settings: Settings) -> None:
    cloning = msgspec.structs.replace(settings, voice_anchors="on-demand", guard_retries=0)
    async with open_studio(cloning, CloningModel(), "dia") as studio:
        previews, anchors = studio.services.voice_previews, studio.services.anchors
        for _ in range(2):
            await previews.get("aria", "", nothing)
        assert len(studio.model.seen) == 2, "the anchor, and the preview"
        first = studio.last_prompt.key

        content = anchor_file(5)
        digest = hashlib.sha256(content).hexdigest()
        await anchors.keep(replace(anchors.all["aria"], digest=digest, seed=5), content)
        await previews.get("aria", "", nothing)
        assert len(studio.model.seen) == 3
        assert studio.last_prompt.key != first


async def test_the_least_recently_heard_preview_is_dropped_first(settings: Settings) -> None:
    async with open_studio(settings, ToneModel()) as studio:
        size = len(await studio.services.voice_previews.get("aria", "", nothing))
        studio.model.seen.clear()
        previews = studio.previews(cache_size=2 * size)
        for voice in ("aria", "atlas", "aria", "kai", "aria", "atlas"):
            await previews.get(voice, "", nothing)

    assert [one.voice for one in studio.model.seen] == ["aria", "atlas", "kai", "atlas"]
