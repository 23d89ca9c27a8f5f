"""The store of anchors: a file and its row, or neither."""

import asyncio
import os
from pathlib import Path

import pytest

from dia_server.errors import PromptNotUsable
from dia_server.services.voices.reference_files import ReferenceFolder
from dia_server.services.voices.references import References
from dia_server.services.voices.voice_prompts import VoicePrompts
from dia_server.services.voices.whisper import Whisper
from tests.libraries import Home, pause_changes
from tests.waiting import until


async def test_an_anchor_whose_keeping_is_cancelled_has_both_file_and_row(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, database_url)
    await home.open()
    begun, go_on = pause_changes(monkeypatch)
    keeping = asyncio.create_task(home.add_anchor("aria", seed=7))
    await until(begun.is_set)
    keeping.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert os.listdir(tmp_path / "anchors") == [home.anchors.all["aria"].file_name]
    await home.database.close()

    again = Home(tmp_path, database_url)
    await again.open()
    assert again.anchors.all == home.anchors.all
    await again.database.close()


async def test_a_voice_is_not_spoken_without_the_anchor_that_it_had(
    tmp_path: Path, database_url: str
) -> None:
    home = Home(tmp_path, database_url)
    await home.open()
    references = References(home.prompts, ReferenceFolder(tmp_path / "references"), Whisper("none", idle_s=0))
    prompts = VoicePrompts(home.prompts, home.folder, home.anchors, references)
    await home.add_anchor("aria", seed=7)
    aria = prompts.snapshot(home.voices.resolve("aria"))
    assert await prompts.load({"S1": aria}) is not None

    await home.anchors.delete("aria")
    with pytest.raises(PromptNotUsable, match="anchor of voice 'aria' has been replaced or deleted"):
        await prompts.load({"S1": aria})
    await home.database.close()
