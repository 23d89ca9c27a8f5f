import asyncio
import hashlib
import io
import os
import random
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from dia_server.audio import prompt as recording
from dia_server.audio import wav
from dia_server.audio.encode import AudioFormat, encode
from dia_server.audio.prompt import make
from dia_server.db.engine import Database
from dia_server.errors import Conflict, Invalid, NotFound, StorageUnavailable, UnusableAudio
from dia_server.services.voices.anchor_folder import AnchorFolder
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.services.voices.service import Voice, VoiceService
from tests.recordings import RATE, sound, wav_file
from tests.rows import execute, refuse_changes


class Shelf:
    """A prompt service with its own database and folder."""

    def __init__(self, data: Path, database_url: str) -> None:
        self.folder = data / "audio_prompts"
        self.database_url = database_url
        self.database = Database(database_url)
        anchors = AnchorStore(self.database.sessions, AnchorFolder(data / "anchors"))
        pronunciations = PronunciationStore(self.database.sessions)
        self.voices = VoiceService(self.database.sessions, anchors, pronunciations)
        self.prompts = self.service()

    def service(self) -> PromptService:
        return PromptService(self.database.sessions, PromptFolder(self.folder, make), self.voices)

    async def open(self) -> None:
        await self.database.upgrade()
        await self.voices.load()
        await self.prompts.load()
        await self.prompts.clean()

    async def add(self, prompt_id: str, content: bytes | None = None) -> None:
        await self.prompts.add(prompt_id, io.BytesIO(content or wav_file(1.0)))

    def drop(self, name: str, content: bytes | str) -> None:
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    @property
    def files(self) -> set[str]:
        return set(os.listdir(self.folder))

    @property
    def rows(self) -> set[str]:
        return {
            prompt_id for (prompt_id,) in execute(self.database_url, "SELECT prompt_id FROM audio_prompts")
        }


@pytest.fixture
async def shelf(tmp_path: Path, database_url: str) -> AsyncIterator[Shelf]:
    shelf = Shelf(tmp_path, database_url)
    await shelf.open()
    yield shelf
    await shelf.database.close()


async def test_an_added_recording_is_stored_as_a_prompt(shelf: Shelf) -> None:
    await shelf.add("my_voice", encode(sound(2.0), RATE, "mp3"))

    stored = (shelf.folder / "my_voice.wav").read_bytes()
    samples = wav.samples(stored[wav.HEADER_LENGTH :])
    assert stored[: wav.HEADER_LENGTH] == wav.header(RATE, len(stored) - wav.HEADER_LENGTH)
    assert np.abs(samples).max() == pytest.approx(0.95, abs=0.001)
    prompt = shelf.prompts.get("my_voice")
    assert prompt.digest == hashlib.sha256(stored).hexdigest()
    assert prompt.file_size == len(stored)
    assert prompt.duration == pytest.approx(2.0, abs=0.1)
    assert shelf.files == {"my_voice.wav"}


async def test_metadata_survives_a_restart(shelf: Shelf) -> None:
    await shelf.add("b")
    await shelf.add("a")
    await shelf.prompts.set_transcript(shelf.prompts.get("a"), "Hello.", "manual")

    again = shelf.service()
    await again.load()

    assert dict(again.all) == dict(shelf.prompts.all)
    assert list(again.all) == ["b", "a"]


@pytest.mark.parametrize(
    "prompt_id",
    ["../x", "a/b", "a\\b", ".x", "", "x" * 65, "con", "NUL.wav", "a\n", "é", "metadata", "a.reference"],
)
async def test_ids_that_are_unsafe_file_names_are_refused(shelf: Shelf, prompt_id: str) -> None:
    with pytest.raises(Invalid, match="prompt_id"):
        await shelf.add(prompt_id)
    assert not shelf.files


async def test_refusing_a_long_id_names_the_limit(shelf: Shelf) -> None:
    with pytest.raises(Invalid) as refusal:
        await shelf.add("x" * 65)
    assert (refusal.value.param, refusal.value.limit) == ("prompt_id", 64)


async def test_decoding_does_not_block_the_default_executor(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, running, decode = threading.Event(), threading.Semaphore(2), recording.make

    def make(file: BinaryIO) -> bytes:
        assert running.acquire(blocking=False)
        gate.wait(10)
        running.release()
        return decode(file)

    monkeypatch.setattr(recording, "make", make)
    adding = [asyncio.create_task(shelf.add(f"voice{i}")) for i in range(40)]
    async with asyncio.timeout(5):
        await asyncio.to_thread(len, "in time")
    gate.set()
    await asyncio.gather(*adding)
    assert len(shelf.prompts.all) == 40


async def test_unusable_audio_leaves_no_trace(shelf: Shelf) -> None:
    for content in (b"no audio", wav_file(0.2), wav_file(61.0)):
        with pytest.raises(UnusableAudio):
            await shelf.add("my_voice", content)
    assert not shelf.files
    assert not shelf.rows


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """Limit the size of files to `limit` bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_raises_storage_unavailable_and_changes_nothing(shelf: Shelf) -> None:
    await shelf.add("kept", wav_file(0.6))
    before, former = shelf.files, (shelf.folder / "kept.wav").read_bytes()

    with small_disk(100_000), pytest.raises(StorageUnavailable, match="cannot be written: "):
        await shelf.add("kept", wav_file(5.0))

    assert (shelf.files, (shelf.folder / "kept.wav").read_bytes()) == (before, former)
    await shelf.add("kept", wav_file(5.0))
    assert shelf.prompts.get("kept").duration == 5.0


@pytest.mark.parametrize("refusal", ["at the write", "at the commit"])
async def test_a_failed_database_write_rolls_the_files_back(shelf: Shelf, refusal: str) -> None:
    await shelf.add("old")
    await shelf.prompts.set_transcript(shelf.prompts.get("old"), "Hello.", "manual")
    before = {name: (shelf.folder / name).read_bytes() for name in shelf.files}
    refuse_changes(shelf.database_url, "audio_prompts", refusal)

    for attempt in (
        shelf.add("new"),
        shelf.add("old", wav_file(2.0)),
        shelf.prompts.delete("old"),
        shelf.prompts.set_transcript(shelf.prompts.get("old"), "Bye.", "manual"),
    ):
        with pytest.raises(StorageUnavailable, match="database"):
            await attempt

    assert {name: (shelf.folder / name).read_bytes() for name in shelf.files} == before
    assert shelf.rows == set(shelf.prompts.all) == {"old"}


async def test_temporary_files_of_a_crash_are_removed(shelf: Shelf) -> None:
    shelf.drop(".0123.tmp", b"half a file")

    await shelf.service().clean()

    assert not shelf.files


async def test_deleting_removes_every_file_of_the_prompt_and_no_other(shelf: Shelf) -> None:
    shelf.drop("voice.mp3", encode(sound(1.0), RATE, "mp3"))
    shelf.drop("voice.reference.txt", "Hello.")
    shelf.drop("voice.txt", "Hello.")
    shelf.drop("voice.md", "Notes")
    shelf.drop("voice2.wav", wav_file(1.0))
    await shelf.prompts.discover()

    await shelf.prompts.delete("voice")

    assert shelf.files == {"voice.md", "voice2.wav"}
    assert shelf.rows == {"voice2"}
    with pytest.raises(NotFound):
        await shelf.prompts.delete("voice")


async def test_a_prompt_used_by_voices_is_not_deleted(shelf: Shelf) -> None:
    await shelf.add("my_prompt")
    for voice_id in ("narrator", "villain"):
        await shelf.voices.save(Voice(voice_id, audio_prompt="my_prompt"))

    with pytest.raises(Conflict, match="'narrator', 'villain'"):
        await shelf.prompts.delete("my_prompt")

    await shelf.voices.delete("narrator")
    await shelf.voices.delete("villain")
    await shelf.prompts.delete("my_prompt")


@pytest.mark.parametrize("audio_format", ["wav", "mp3", "flac", "opus", "aac"])
async def test_discovery_converts_added_files_to_prompts(shelf: Shelf, audio_format: AudioFormat) -> None:
    extension = "ogg" if audio_format == "opus" else audio_format
    shelf.drop(f"dropped.{extension}", encode(0.3 * sound(1.0), RATE, audio_format))

    assert not await shelf.prompts.discover()

    assert shelf.prompts.get("dropped").duration == pytest.approx(1.0, abs=0.1)
    assert "dropped.wav" in shelf.files
    assert np.abs(wav.samples((shelf.folder / "dropped.wav").read_bytes()[44:])).max() == pytest.approx(
        0.95, abs=0.001
    )


async def test_a_file_in_prompt_format_is_not_rewritten(shelf: Shelf) -> None:
    await shelf.add("a")
    made = (shelf.folder / "a.wav").read_bytes()
    shelf.drop("b.wav", made)
    os.utime(shelf.folder / "b.wav", (1, 1))

    await shelf.prompts.discover()

    assert shelf.prompts.get("b").digest == shelf.prompts.get("a").digest
    assert (shelf.folder / "b.wav").stat().st_mtime == 1


async def test_a_changed_file_is_read_again(shelf: Shelf) -> None:
    await shelf.add("a", wav_file(1.0))
    shelf.drop("a.wav", wav_file(2.0))

    await shelf.prompts.discover()

    assert shelf.prompts.get("a").duration == 2.0


async def test_an_audio_file_newer_than_the_wav_file_replaces_it(shelf: Shelf) -> None:
    await shelf.add("a", wav_file(1.0))
    shelf.drop("a.flac", encode(sound(3.0), RATE, "flac"))
    os.utime(shelf.folder / "a.wav", (1, 1))

    await shelf.prompts.discover()
    assert shelf.prompts.get("a").duration == 3.0

    os.utime(shelf.folder / "a.flac", (1, 1))
    shelf.drop("a.wav", wav_file(2.0))
    await shelf.prompts.discover()
    assert shelf.prompts.get("a").duration == 2.0


async def test_an_unusable_audio_file_does_not_hide_the_wav_file(shelf: Shelf) -> None:
    shelf.drop("a.wav", wav_file(1.0))
    os.utime(shelf.folder / "a.wav", (1, 1))
    shelf.drop("a.mp3", "no audio")

    skipped = await shelf.prompts.discover()

    assert [skip.file_name for skip in skipped] == ["a.mp3"]
    assert shelf.prompts.get("a").duration == 1.0


async def test_prompts_with_a_deleted_file_are_removed(shelf: Shelf) -> None:
    await shelf.add("gone")
    await shelf.add("broken")
    await shelf.add("kept")
    (shelf.folder / "gone.wav").unlink()
    shelf.drop("broken.wav", "no audio")

    skipped = await shelf.prompts.discover()

    assert set(shelf.prompts.all) == shelf.rows == {"kept"}
    assert [skip.file_name for skip in skipped] == ["broken.wav"]


async def test_files_that_cannot_be_prompts_are_named_with_the_reason(shelf: Shelf) -> None:
    shelf.drop("my voice.wav", wav_file(1.0))
    shelf.drop("short.wav", wav_file(0.1))
    shelf.drop("README.md", "Put recordings here.")
    (shelf.folder / "folder.wav").mkdir()

    reasons = {skip.file_name: skip.reason for skip in await shelf.prompts.discover()}

    assert reasons.keys() == {"my voice.wav", "short.wav", "folder.wav"}
    assert "prompt_id must be" in reasons["my voice.wav"]
    assert "0.5 to 60 s" in reasons["short.wav"]
    assert not shelf.rows


async def test_links_are_neither_followed_nor_written_through(shelf: Shelf, tmp_path: Path) -> None:
    outside, secret = tmp_path / "outside.wav", tmp_path / "secret.txt"
    outside.write_bytes(wav_file(1.0))
    secret.write_text("secret")
    content = outside.read_bytes()
    for name in ("link.wav", "mine.wav"):
        (shelf.folder / name).symlink_to(outside)
    shelf.drop("real.wav", wav_file(1.0))
    (shelf.folder / "real.txt").symlink_to(secret)

    skipped = await shelf.prompts.discover()
    await shelf.add("mine", wav_file(2.0))
    await shelf.prompts.set_transcript(shelf.prompts.get("real"), "Hello.", "manual")
    await shelf.prompts.delete("mine")

    assert {skip.file_name for skip in skipped} == {"link.wav", "mine.wav"}
    assert shelf.prompts.all.keys() == {"real"}
    assert (shelf.folder / "real.txt").read_text() == "Hello.\n"
    assert (outside.read_bytes(), secret.read_text()) == (content, "secret")


async def test_opening_a_named_pipe_does_not_block(shelf: Shelf) -> None:
    os.mkfifo(shelf.folder / "pipe.wav")
    os.mkfifo(shelf.folder / "real.txt")
    shelf.drop("real.wav", wav_file(1.0))

    await shelf.prompts.discover()

    assert shelf.prompts.get("real").transcript is None


async def test_a_reference_file_takes_precedence_over_a_txt_file(shelf: Shelf) -> None:
    for prompt_id, sidecars in {"both": ["reference.txt", "txt"], "txt": ["txt"], "none": []}.items():
        shelf.drop(f"{prompt_id}.wav", wav_file(1.0))
        for sidecar in sidecars:
            shelf.drop(f"{prompt_id}.{sidecar}", f"From\n {sidecar}.")

    await shelf.prompts.discover()

    known = {
        prompt.prompt_id: (prompt.transcript, prompt.transcript_source)
        for prompt in shelf.prompts.all.values()
    }
    assert known == {
        "both": ("From reference.txt.", "reference"),
        "txt": ("From txt.", "txt"),
        "none": (None, None),
    }


async def test_added_or_changed_transcript_files_are_loaded(shelf: Shelf) -> None:
    await shelf.add("a")
    await shelf.prompts.set_transcript(shelf.prompts.get("a"), "By hand.", "manual")
    await shelf.prompts.discover()
    assert shelf.prompts.get("a").transcript_source == "manual"

    shelf.drop("a.txt", "\ufeffWith an editor.\r\n")
    await shelf.prompts.discover()
    assert shelf.prompts.get("a").transcript == "With an editor."
    assert shelf.prompts.get("a").transcript_source == "txt"

    shelf.drop("a.reference.txt", "Reference.")
    await shelf.prompts.discover()
    assert shelf.prompts.get("a").transcript_source == "reference"

    await shelf.prompts.set_transcript(shelf.prompts.get("a"), "By hand again.", "manual")
    await shelf.prompts.discover()
    assert shelf.prompts.get("a").transcript == "By hand again."


@pytest.mark.parametrize("content", [b"", b"  \n", b"[S1]", b"\xff\xfe\x00", b"x" * 20_000])
async def test_transcript_files_without_words_are_ignored(shelf: Shelf, content: bytes) -> None:
    shelf.drop("a.wav", wav_file(1.0))
    shelf.drop("a.txt", content)

    await shelf.prompts.discover()

    assert shelf.prompts.get("a").transcript is None


async def test_a_new_recording_drops_the_old_transcript(shelf: Shelf) -> None:
    await shelf.add("a", wav_file(1.0))
    await shelf.prompts.set_transcript(shelf.prompts.get("a"), "Hello.", "whisper_auto")

    await shelf.add("a", wav_file(1.0))
    assert shelf.prompts.get("a").transcript == "Hello.", "it is the same recording"

    await shelf.add("a", wav_file(2.0))
    assert shelf.prompts.get("a").transcript is None
    assert shelf.files == {"a.wav"}


async def test_a_new_recording_keeps_transcript_files_of_the_operator(shelf: Shelf) -> None:
    shelf.drop("a.wav", wav_file(1.0))
    shelf.drop("a.txt", "What I say in every take.")
    await shelf.prompts.discover()

    await shelf.add("a", wav_file(2.0))

    assert shelf.prompts.get("a").transcript_source == "txt"


async def test_a_transcript_for_a_replaced_recording_is_refused(shelf: Shelf) -> None:
    await shelf.add("a", wav_file(1.0))
    heard = shelf.prompts.get("a")
    await shelf.add("a", wav_file(2.0))

    with pytest.raises(Conflict):
        await shelf.prompts.set_transcript(heard, "Too late.", "whisper_auto")
    assert shelf.prompts.get("a").transcript is None


async def test_a_manual_transcript_is_not_overwritten_by_whisper(shelf: Shelf) -> None:
    await shelf.add("a")
    heard = shelf.prompts.get("a")
    await shelf.prompts.set_transcript(heard, "By hand.", "manual")

    with pytest.raises(Conflict):
        await shelf.prompts.set_transcript(heard, "By ear.", "whisper_auto")
    await shelf.prompts.set_transcript(heard, "By hand, again.", "manual")
    assert shelf.prompts.get("a").transcript == "By hand, again."


async def test_concurrent_changes_keep_folder_database_and_memory_consistent(shelf: Shelf) -> None:
    chance = random.Random(0)
    recordings = [wav_file(0.5 + 0.1 * number) for number in range(4)]

    async def change() -> None:
        prompt_id = chance.choice("abc")
        with suppress(NotFound, Conflict):
            match chance.randrange(4):
                case 0:
                    await shelf.add(prompt_id, chance.choice(recordings))
                case 1:
                    await shelf.prompts.delete(prompt_id)
                case 2:
                    await shelf.prompts.set_transcript(shelf.prompts.get(prompt_id), "Hello.", "whisper_auto")
                case _:
                    await shelf.prompts.discover()

    await asyncio.gather(*(change() for _ in range(80)))

    known = dict(shelf.prompts.all)
    again = shelf.service()
    await again.load()
    assert dict(again.all) == known
    assert known
    for prompt_id, prompt in known.items():
        stored = (shelf.folder / f"{prompt_id}.wav").read_bytes()
        assert hashlib.sha256(stored).hexdigest() == prompt.digest
        assert (f"{prompt_id}.txt" in shelf.files) == (prompt.transcript is not None)
    assert len(shelf.files) == len(known) + sum(prompt.transcript is not None for prompt in known.values())
