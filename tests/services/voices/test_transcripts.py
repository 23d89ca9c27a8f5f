import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dia_server.audio.prompt import make
from dia_server.db.engine import Database
from dia_server.services.voices.anchor_folder import AnchorFolder
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.services.voices.service import VoiceService
from dia_server.services.voices.transcription import Transcription
from dia_server.services.voices.transcripts import TranscriptService
from dia_server.services.voices.whisper import Whisper
from tests.recordings import wav_file
from tests.transcriptions import SPANISH, SURE, heard
from tests.waiting import until

NAMES = ("a", "b", "c", "d")


class HeldWhisper(Whisper):
    """Transcribes a recording as its length, once the gate is open."""

    def __init__(self) -> None:
        super().__init__("tiny", idle_s=0)
        self.confidence = SURE
        self.heard: list[int] = []
        self.let = asyncio.Event()

    async def transcribe(self, recording: bytes) -> Transcription:
        self.heard.append(len(recording))
        await self.let.wait()
        return heard(f"{len(recording)} bytes.", self.confidence)


class World:
    """A folder with one recording for each of `NAMES`, in order of length."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.database = Database(database_url)
        anchors = AnchorStore(self.database.sessions, AnchorFolder(folder / "anchors"))
        pronunciations = PronunciationStore(self.database.sessions)
        self.voices = VoiceService(self.database.sessions, anchors, pronunciations)
        self.folder = PromptFolder(folder / "audio_prompts", make)
        self.prompts = self.service()
        self.whisper = HeldWhisper()
        self.transcripts = TranscriptService(
            self.prompts, self.folder, self.whisper, auto_transcribe=True, wait_s=0
        )

    def service(self) -> PromptService:
        return PromptService(self.database.sessions, self.folder, self.voices)

    def files(self) -> set[str]:
        return {path.name for path in self.folder.path.glob("a.*")}

    async def draft(self) -> Prompt:
        """Have Whisper transcribe the recording "a", unsure of what it hears."""
        await self.prompts.discover()
        self.whisper.confidence = SPANISH
        self.whisper.let.set()
        return await self.transcripts.transcribe("a")

    async def heard(self, count: int) -> list[str]:
        """Return the names of the recordings passed to Whisper, once there are `count`."""

        async def so_many() -> bool:
            return len(self.whisper.heard) >= count

        await until(so_many)
        sizes = {prompt.file_size: name for name, prompt in self.prompts.all.items()}
        return [sizes[size] for size in self.whisper.heard]


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    world = World(tmp_path, database_url)
    await world.database.upgrade()
    await world.prompts.load()
    await world.prompts.clean()
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


async def test_the_confidence_is_kept_with_the_transcript(world: World) -> None:
    await world.prompts.discover()
    world.whisper.let.set()

    prompt = await world.transcripts.transcribe("a")

    assert (prompt.confidence, prompt.needs_review, world.transcripts.note(prompt)) == (SURE, False, None)
    again = world.service()
    await again.load()
    assert again.get("a") == prompt


async def test_a_doubtful_transcript_is_a_draft_in_the_database_only(world: World) -> None:
    prompt = await world.draft()

    assert (prompt.transcript_source, prompt.confidence, prompt.needs_review) == (
        "whisper_auto",
        SPANISH,
        True,
    )
    note = world.transcripts.note(prompt)
    assert note is not None
    assert "'es'" in note
    assert "PUT /audio_prompts/a/transcript confirms" in note
    assert world.files() == {"a.wav"}
    await world.prompts.discover()
    again = world.service()
    await again.load()
    assert world.prompts.get("a") == again.get("a") == prompt


async def test_a_draft_is_confirmed_by_a_person(world: World) -> None:
    draft = await world.draft()
    assert draft.transcript is not None

    confirmed = await world.prompts.set_transcript(draft, draft.transcript, "manual")

    assert (confirmed.transcript, confirmed.transcript_source) == (draft.transcript, "manual")
    assert (confirmed.confidence, confirmed.needs_review) == (None, False)
    assert world.transcripts.note(confirmed) is None
    assert world.files() == {"a.wav", "a.txt"}


async def test_a_transcript_file_replaces_a_draft(world: World) -> None:
    await world.draft()
    (world.folder.path / "a.txt").write_text("What I said.")

    await world.prompts.discover()

    prompt = world.prompts.get("a")
    assert (prompt.transcript, prompt.transcript_source) == ("What I said.", "txt")
    assert (prompt.confidence, prompt.needs_review) == (None, False)


@pytest.mark.parametrize(("seconds", "is_kept"), [(1, True), (2, False)])
async def test_a_draft_belongs_to_its_recording(world: World, seconds: float, is_kept: bool) -> None:
    draft = await world.draft()

    await world.prompts.add("a", io.BytesIO(wav_file(seconds)))

    prompt = world.prompts.get("a")
    assert (prompt == draft, prompt.transcript is None, prompt.needs_review) == (
        is_kept,
        not is_kept,
        is_kept,
    )


async def test_a_draft_takes_the_place_of_a_transcript_that_the_server_wrote(world: World) -> None:
    await world.prompts.discover()
    await world.prompts.set_transcript(world.prompts.get("a"), "By hand.", "manual")
    assert world.files() == {"a.wav", "a.txt"}

    draft = await world.draft()

    assert draft.needs_review
    assert world.files() == {"a.wav"}
    await world.prompts.discover()
    assert world.prompts.get("a") == draft


async def test_a_draft_leaves_the_operators_file_in_place(world: World) -> None:
    (world.folder.path / "a.txt").write_text("What I said.")

    draft = await world.draft()

    assert draft.needs_review
    assert world.files() == {"a.wav", "a.txt"}
    await world.prompts.discover()
    assert world.prompts.get("a") == draft
    await world.prompts.add("a", io.BytesIO(wav_file(2)))
    assert (world.prompts.get("a").transcript, world.prompts.get("a").needs_review) == ("What I said.", False)
