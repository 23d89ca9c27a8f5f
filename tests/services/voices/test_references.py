import asyncio
import base64
import gc
import hashlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest

from dia_server.audio.prompt import make
from dia_server.db.engine import Database
from dia_server.errors import PromptNotUsable
from dia_server.services.voices.anchor_folder import AnchorFolder
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.services.voices.reference_files import ReferenceFolder
from dia_server.services.voices.references import Reference, References
from dia_server.services.voices.service import VoiceService
from dia_server.services.voices.whisper import Whisper
from tests.recordings import wav_file
from tests.waiting import until

WAV_SIZE = 88_244
"""Bytes of a decoded reference of one second."""


class Desk:
    """References whose decoding is counted and may be held back."""

    def __init__(self, data: Path, database: Database) -> None:
        self.decoded = 0
        self.gate = threading.Event()
        self.gate.set()
        voices = VoiceService(
            database.sessions,
            AnchorStore(database.sessions, AnchorFolder(data / "anchors")),
            PronunciationStore(database.sessions),
        )
        prompts = PromptService(database.sessions, PromptFolder(data / "audio_prompts", self._make), voices)
        folder = ReferenceFolder(data / "references")
        whisper = Whisper("none", idle_s=0)
        self.references = References(prompts, folder, whisper, cache_size=2 * WAV_SIZE)

    def _make(self, file: BinaryIO) -> bytes:
        self.decoded += 1
        assert self.gate.wait(timeout=10)
        return make(file)

    async def resolve(self, pitch: float) -> Reference:
        audio = base64.b64encode(wav_file(1.0, pitch=pitch)).decode()
        reference = await self.references.resolve(audio, "My words.")
        assert reference is not None
        return reference


@pytest.fixture
async def desk(tmp_path: Path, database: Database) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, database)
    yield desk
    await desk.references.close()


async def test_the_cache_drops_the_least_recently_used(desk: Desk) -> None:
    for pitch in (100, 110, 100, 120):
        await desk.resolve(pitch)
    assert desk.decoded == 3
    await desk.resolve(100)
    assert desk.decoded == 3
    await desk.resolve(110)
    assert desk.decoded == 4


async def test_a_reference_in_use_can_be_read_though_the_cache_has_dropped_it(desk: Desk) -> None:
    used = await desk.resolve(100)
    digest = used.clip.digest
    for pitch in (110, 120, 130):
        await desk.resolve(pitch)

    wav = await desk.references.wav(digest)
    assert (len(wav), hashlib.sha256(wav).hexdigest()) == (WAV_SIZE, digest)
    del used, wav
    gc.collect()
    with pytest.raises(PromptNotUsable):
        await desk.references.wav(digest)


async def test_a_client_that_leaves_does_not_stop_the_decoding_for_another(desk: Desk) -> None:
    desk.gate.clear()
    leaving = asyncio.create_task(desk.resolve(100))

    async def started() -> bool:
        return desk.decoded == 1

    await until(started)
    staying = asyncio.create_task(desk.resolve(100))
    leaving.cancel()
    await asyncio.wait([leaving])
    desk.gate.set()

    assert (await staying).transcript == "My words."
    assert (leaving.cancelled(), desk.decoded) == (True, 1)
