from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dia_server.configuration import default_config
from dia_server.db.engine import Database
from dia_server.services.config import ConfigService
from dia_server.services.jobs.outputs import OutputsFolder
from dia_server.services.jobs.recorder import Recorder
from dia_server.services.jobs.store import JobStore
from dia_server.services.peers import Membership
from dia_server.services.server.resources import ResourceMonitor
from dia_server.services.server.stats import StatsService
from dia_server.services.speech.request import Speech, SpeechRequest
from dia_server.services.speech.usage import Usage
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot
from dia_server.settings import Settings

REQUEST = SpeechRequest(text="Hello", voice_id="aria", seed=1)
USAGE = Usage(generation_s=1.0, tokens=86, audio_s=1.0, retries=0)


class World:
    """A recorder that saves outputs, not started yet; at most 100 bytes may wait."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.database = Database(database_url)
        self.store = JobStore(self.database, Membership(self.database))
        config = ConfigService(self.database.sessions, default_config(Settings(save_outputs=True)))
        self.folder = folder / "audio_outputs"
        self.recorder = Recorder(self.store, OutputsFolder(self.folder), config, max_waiting=100)

    def finish(self, size: int | None) -> None:
        speech = (
            None if size is None else Speech(REQUEST, CastSnapshot(VoiceSnapshot("aria")), b"x" * size, USAGE)
        )
        self.recorder.record(speech)

    async def write(self) -> list[int]:
        """Start and stop the recorder; return the sizes of the saved files."""
        self.recorder.start()
        await self.recorder.stop()
        return sorted(path.stat().st_size for path in self.folder.glob("*"))

    async def counted(self) -> tuple[int, int]:
        stats = await StatsService(self.database.reads, ResourceMonitor()).stats()
        return stats.successful, stats.failed


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    world = World(tmp_path, database_url)
    await world.database.upgrade()
    await world.store.membership.join()
    yield world
    await world.database.close()


async def test_outputs_queue_for_the_disk_up_to_the_limit(world: World) -> None:
    for size in (60, 50, 40, 1, None):
        world.finish(size)

    assert await world.write() == [40, 60]
    assert len(await world.store.newest("completed", 10)) == 2
    assert await world.counted() == (4, 1)


async def test_an_output_above_the_limit_is_saved_if_the_queue_is_empty(world: World) -> None:
    for size in (1000, 1):
        world.finish(size)

    assert await world.write() == [1000]
    assert await world.counted() == (2, 0)
