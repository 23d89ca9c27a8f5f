import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dia_server.audio.prompt import make
from dia_server.db.engine import Database
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.service import VoiceService
from dia_server.services.voices.transcripts import TranscriptService
from dia_server.services.voices.whisper import Whisper
from tests.recordings import wav_file
from tests.waiting import until

NAMES = ("a", "b", "c", "d")


class HeldWhisper(Whisper):
    """Transcribes a recording as its length, once the gate is open."""

    def __init__(self) -> None:
        super().__init__("tiny", idle_s=0)
        self.heard: list[int] = []
        self.let = asyncio.Event()

    async def transcribe(self, recording: bytes) -> str:
        self.heard.append(len(recording))
        await self.let.wait()
        return f"{len(recording)} bytes."


class World:
    """A folder with one recording for each of `NAMES`, in order of length."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite+aiosqlite:///{folder}/dia.sqlite3")
        self.folder = PromptFolder(folder / "audio_prompts", make)
        anchors = AnchorStore(self.database.sessions, folder / "anchors")
        voices = VoiceService(self.database.sessions, anchors)
        self.prompts = PromptService(self.database.sessions, self.folder, voices)
        self.whisper = HeldWhisper()
        self.transcripts = TranscriptService(
            self.prompts, self.folder, self.whisper, auto_transcribe=True, wait_s=0
        )

    async def heard(self, count: int) -> list[str]:
        """Return the names of the recordings passed to Whisper, once there are `count`."""

        async def so_many() -> bool:
            return len(self.whisper.heard) >= count

        await until(so_many)
        sizes = {prompt.file_size: name for name, prompt in self.prompts.all.items()}
        return [sizes[size] for size in self.whisper.heard]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.database.upgrade()
    await world.prompts.load()
    for seconds, name in enumerate(NAMES, 1):
        (world.folder.path / f"{name}.wav").write_bytes(wav_file(seconds))
    yield world
    world.whisper.let.set()
    await world.transcripts.close()
    await world.database.close()


async def test_a_requested_transcript_does_not_wait_for_a_discovery(world: World) -> None:
    await world.transcripts.discover(wait=False)
    first = (await world.heard(1))[0]
    asked = next(name for name in reversed(NAMES) if name != first)

    answer = asyncio.create_task(world.transcripts.transcribe(asked))

    assert await world.heard(2) == [first, asked]
    world.whisper.let.set()
    assert (await answer).transcript_source == "whisper_auto"


async def test_nothing_is_transcribed_twice(world: World) -> None:
    await world.transcripts.discover(wait=False)
    (first,) = await world.heard(1)
    answers = [asyncio.create_task(world.transcripts.transcribe(name)) for name in (first, "d", "d")]
    await world.heard(2)
    world.whisper.let.set()
    await asyncio.gather(*answers)

    async def done() -> bool:
        return all(prompt.transcript for prompt in world.prompts.all.values())

    await until(done)
    assert sorted(await world.heard(len(NAMES))) == sorted(NAMES)


async def test_a_first_transcript_is_pending_while_queued_and_while_running(world: World) -> None:
    await world.transcripts.discover(wait=False)
    await world.heard(1)

    assert all(world.transcripts.is_pending(prompt) for prompt in world.prompts.all.values())
