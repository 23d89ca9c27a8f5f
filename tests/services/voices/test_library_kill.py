"""SIGKILL in the middle of an import: after the next start there is all of it, or nothing."""

import asyncio
import io
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from dia_server.services.durable_files import JOURNAL, TEMPORARY_FILES
from dia_server.services.voices.service import Voice
from tests.libraries import Home
from tests.live import forks
from tests.recordings import wav_file
from tests.services.voices.killed_import import POINTS

COMMITTED = {"committed", "journal removed"}


async def content(data: Path) -> Any:
    """Open the data folder as a start does, look for new files, and return what is there, without times."""
    home = Home(data)
    await home.open()
    await home.prompts.discover()
    files, _, voices, prompts, anchors = home.content
    await home.database.close()
    kept = {name: (one.digest, one.transcript) for name, one in prompts.items()}
    return files, voices, kept, {name: one.digest for name, one in anchors.items()}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data folder `before`, an archive, and the data folder `after` its import."""

    async def make() -> None:
        full, before, after = (Home(data / name) for name in ("full", "before", "after"))
        for home in (full, before, after):
            await home.open()
        await full.furnish()
        for home in (before, after):
            await home.prompts.add("anna", io.BytesIO(wav_file(1.0)), "Another Anna.")
            await home.prompts.add("ben", io.BytesIO(wav_file(2.0)), "Another Ben.")
            (home.folder.path / "ben.reference.txt").write_text("Written by hand.")
            await home.voices.save(Voice("ben", "gloomy"))
            await home.voices.save(Voice("made", "gloomy"))
            await home.add_anchor("made", seed=1)
            await home.prompts.discover()
        with await full.library.export([]) as archive:
            (data / "voices.zip").write_bytes(archive.read())
            archive.seek(0)
            await after.library.add(archive, overwrite=True)
        with await full.library.export(["anna"]) as archive:
            (data / "anna.zip").write_bytes(archive.read())
        for home in (full, before, after):
            await home.database.close()

    data = tmp_path_factory.mktemp("template")
    asyncio.run(make())
    return data


def killed(template: Path, data: Path, point: str, archive: str = "voices.zip") -> Path:
    """Copy the data folder `before` to `data`, and kill an import into it; return `data`."""
    shutil.copytree(template / "before", data)
    module = "tests.services.voices.killed_import"
    arguments = ["-m", module, str(data), str(template / archive), point]
    ended = forks.run(arguments, Path(__file__).parents[3], os.environ)
    assert ended.returncode == -signal.SIGKILL
    return data


@pytest.mark.parametrize("point", POINTS)
async def test_an_import_is_done_or_not(template: Path, tmp_path: Path, point: str) -> None:
    data = killed(template, tmp_path / "data", point)

    expected = tmp_path / "expected"
    shutil.copytree(template / ("after" if point in COMMITTED else "before"), expected)
    assert await content(data) == await content(expected)
    assert not [*(data / "audio_prompts").glob(TEMPORARY_FILES), *data.rglob(JOURNAL)]


async def test_a_transcript_of_the_same_recording_is_done_or_not(template: Path, tmp_path: Path) -> None:
    data = killed(template, tmp_path / "data", "applied", "anna.zip")
    assert "Spoken by anna" in (data / "audio_prompts" / "anna.txt").read_text()

    shutil.copytree(template / "before", tmp_path / "expected")
    assert await content(data) == await content(tmp_path / "expected")


async def test_an_undoing_that_was_killed_is_completed(template: Path, tmp_path: Path) -> None:
    """The journal is read again, although the backups are in their places already."""
    data = killed(template, tmp_path / "data", "applied")
    journal = (data / "audio_prompts" / JOURNAL).read_bytes()
    first = await content(data)
    (data / "audio_prompts" / JOURNAL).write_bytes(journal)

    assert await content(data) == first
