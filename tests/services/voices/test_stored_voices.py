"""Recordings and anchors in an object storage, which servers with a folder of their own share."""

import io
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dia_server.errors import NotFound, ObjectStoreUnavailable, PromptNotUsable
from dia_server.services.durable_files import GRACE_S
from dia_server.services.object_store import ObjectStore
from dia_server.services.voices.service import Voice
from tests.libraries import Home
from tests.recordings import wav_file
from tests.storage import BOTH_STORAGES, ON_FILE, ON_S3, S3, open_store


@pytest.fixture
async def store(storage_url: str) -> ObjectStore:
    store = open_store(storage_url)
    await store.mark()
    return store


@pytest.fixture
async def home(store: ObjectStore, tmp_path: Path) -> AsyncIterator[Home]:
    """A server with two recordings, an anchor and a voice without a sound."""
    home = Home(tmp_path / "home", store=store)
    await home.open()
    await home.furnish()
    yield home
    await home.database.close()


async def recording(home: Home, prompt_id: str) -> bytes:
    size, chunks = await home.prompts.recording(prompt_id)
    content = b"".join([chunk async for chunk in chunks])
    assert size == len(content)
    return content


@BOTH_STORAGES
async def test_files_are_in_the_storage_only(home: Home, store: ObjectStore) -> None:
    prompts = home.prompts.all
    assert await recording(home, "anna") == await home.files.recordings.read(prompts["anna"])
    await home.prompts.set_transcript(prompts["ben"], "Said by Ben.", "manual")

    assert (await store.list("recordings")).keys() == {f"{one.digest}.wav" for one in prompts.values()}
    assert (await store.list("anchors")).keys() == {home.anchors.all["made"].file_name}
    assert {path.name for path in home.data.iterdir() if not path.name.startswith("dia.")} == {"cache"}
    assert home.prompts.all["ben"].transcript == "Said by Ben."


@BOTH_STORAGES
async def test_nothing_is_discovered_and_nothing_forgotten(home: Home) -> None:
    (home.data / "audio_prompts").mkdir()
    (home.data / "audio_prompts" / "dropped.wav").write_bytes(wav_file(1.0))

    assert await home.prompts.discover() == []
    assert home.prompts.all.keys() == {"anna", "ben"}


@BOTH_STORAGES
async def test_a_library_goes_from_a_storage_to_folders_and_back(
    home: Home, store: ObjectStore, tmp_path: Path
) -> None:
    folders = Home(tmp_path / "folders")
    await folders.open()
    with await home.library.export([]) as archive:
        await folders.library.add(archive)
    assert (folders.data / "audio_prompts" / "anna.txt").read_text() == "Spoken by anna.\n"
    with await folders.library.export([]) as archive:
        again = archive.read()
    await folders.database.close()

    other = Home(tmp_path / "other", store=store)
    await other.open()
    await other.library.add(io.BytesIO(again))
    assert other.voices.all == home.voices.all
    for name, prompt in home.prompts.all.items():
        assert other.prompts.all[name].transcript == prompt.transcript
        assert await recording(other, name) == await recording(home, name)
    anchor = other.anchors.all["made"]
    assert await other.anchors.content(anchor) == await home.anchors.content(home.anchors.all["made"])
    await other.database.close()


@ON_FILE
async def test_only_what_no_row_names_is_removed(home: Home, tmp_path: Path) -> None:
    await home.prompts.delete_with_voice("anna", "anna")
    await home.anchors.delete("made")
    storage = tmp_path / "storage"
    kept = {home.prompts.all["ben"].digest}
    await home.prompts.clean()
    assert len(os.listdir(storage / "recordings")) == 2  # another server may be about to use it

    for path in storage.glob("*/*"):
        os.utime(path, times=(time.time() - GRACE_S - 60,) * 2)
    await home.prompts.clean()
    await home.anchors.clean()
    assert {path.stem for path in storage.glob("recordings/*")} == kept
    assert os.listdir(storage / "anchors") == []


@ON_FILE
async def test_copies_that_are_not_used_are_removed(home: Home) -> None:
    await recording(home, "anna")
    await recording(home, "ben")
    unused = home.data / "cache" / home.prompts.all["anna"].digest
    os.utime(unused, times=(0, 0))

    for clean in home.files.cleanings:
        await clean()
    assert {path.name for path in (home.data / "cache").iterdir()} == {home.prompts.all["ben"].digest}


@ON_FILE
async def test_missing_and_damaged_files_are_reported(home: Home, tmp_path: Path) -> None:
    anna, anchor = home.prompts.all["anna"], home.anchors.all["made"]
    (tmp_path / "storage" / "recordings" / f"{anna.digest}.wav").write_bytes(b"damaged")
    (tmp_path / "storage" / "anchors" / anchor.file_name).write_bytes(b"damaged")
    with pytest.raises(PromptNotUsable, match="'anna' is damaged in the storage"):
        await home.files.recordings.read(anna)
    with pytest.raises(PromptNotUsable, match="'made' has been changed"):
        await home.anchors.content(anchor)

    shutil.rmtree(tmp_path / "storage" / "recordings")
    shutil.rmtree(tmp_path / "storage" / "anchors")
    with pytest.raises(PromptNotUsable, match="'anna' is missing in the storage"):
        await home.files.recordings.read(anna)
    with pytest.raises(NotFound, match="'anna' cannot be read"):
        await home.prompts.recording("anna")
    with pytest.raises(PromptNotUsable, match="'made' cannot be read"):
        await home.anchors.content(anchor)


@ON_S3
async def test_while_the_storage_is_away_nothing_changes(home: Home, s3: S3) -> None:
    prompts, voices, anchors = dict(home.prompts.all), dict(home.voices.all), dict(home.anchors.all)
    with await home.library.export([]) as archive:
        content = archive.read()
    shutil.rmtree(home.data / "cache")
    s3.stop()
    try:
        for change in (
            home.prompts.add("new", io.BytesIO(wav_file(1.0))),
            home.add_anchor("aria", seed=1),
            home.library.add(io.BytesIO(content), overwrite=True),
            home.prompts.recording("anna"),
            home.anchors.content(home.anchors.all["made"]),
        ):
            with pytest.raises(ObjectStoreUnavailable):
                await change
    finally:
        s3.start()

    assert (home.prompts.all, home.voices.all, home.anchors.all) == (prompts, voices, anchors)
    await home.prompts.add("new", io.BytesIO(wav_file(1.0)))
    await home.voices.save(Voice("new", audio_prompt="new"))
    assert await recording(home, "new")
