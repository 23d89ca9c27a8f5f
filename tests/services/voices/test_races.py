"""Two servers on one PostgreSQL change the same voice."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from dia_server.db.models import AudioPrompt, VoiceAnchor
from dia_server.errors import Conflict, NotFound
from dia_server.services.durable_files import JOURNAL, RecoverableChange
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.custom_voices import CustomVoices
from dia_server.services.voices.service import Voice
from tests.libraries import Home, pause_changes
from tests.postgres import ON_POSTGRES
from tests.recordings import wav_file
from tests.waiting import until

pytestmark = ON_POSTGRES


@pytest.fixture
async def homes(tmp_path: Path, database_url: str) -> AsyncIterator[list[Home]]:
    """Two servers, each with a folder of its own."""
    homes = [Home(tmp_path / name, database_url) for name in ("first", "second")]
    for home in homes:
        await home.open()
    yield homes
    for home in homes:
        await home.database.close()


async def test_both_can_save_a_voice(homes: list[Home]) -> None:
    await asyncio.gather(*(home.voices.save(Voice("anna", "calm")) for home in (*homes, *homes)))

    for home in homes:
        await home.voices.load()
        assert home.voices.all["anna"].style == "calm"


async def test_only_one_can_add_a_voice(homes: list[Home]) -> None:
    async def add(home: Home) -> None:
        async with home.voices.adding(Voice("anna")) as write, home.database.sessions.begin() as session:
            await write(session)

    await add(homes[0])
    with pytest.raises(Conflict, match="Voice 'anna' exists already"):
        await add(homes[1])


async def test_a_voice_deleted_while_its_anchor_is_kept_leaves_no_anchor(
    homes: list[Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = homes
    await first.voices.save(Voice("anna"))
    await second.voices.load()
    begun, go_on = pause_changes(monkeypatch)
    keeping = asyncio.create_task(first.add_anchor("anna", seed=7))
    await until(begun.is_set)
    deleting = asyncio.create_task(second.voices.delete("anna"))
    await until(lambda: is_waiting(first, deleting))
    go_on.set()
    await asyncio.gather(keeping, deleting)

    async with first.database.reads() as session:
        assert (await session.scalars(select(VoiceAnchor))).all() == []


async def test_an_anchor_of_another_server_is_not_replaced_by_one_made_meanwhile(homes: list[Home]) -> None:
    first, second = homes
    await first.voices.save(Voice("anna"))
    await second.voices.load()
    await first.add_anchor("anna", seed=7)
    stored = first.anchors.all["anna"]

    await second.add_anchor("anna", seed=8, replace=False)

    assert second.anchors.all == {"anna": stored}
    assert list(second.data.glob("anchors/*")) == []  # that server has a folder of its own here
    await second.add_anchor("anna", seed=8)
    assert second.anchors.all["anna"].seed == 8


async def test_a_transcript_is_not_stored_for_a_recording_that_was_replaced(homes: list[Home]) -> None:
    first, second = homes
    await first.prompts.add("anna", io.BytesIO(wav_file(1.0)))
    await second.prompts.load()
    former = second.prompts.get("anna")
    replaced = await first.prompts.add("anna", io.BytesIO(wav_file(2.0)))

    with pytest.raises(Conflict, match="Audio prompt 'anna' has changed during the request"):
        await second.prompts.set_transcript(former, "Said by Anna.", "manual")

    assert second.prompts.get("anna") == replaced
    assert await stored_prompts(second) == [replaced]


async def test_a_change_of_another_server_is_kept_by_the_next_one(homes: list[Home]) -> None:
    first, second = homes
    await first.prompts.add("anna", io.BytesIO(wav_file(1.0)))
    await second.prompts.load()
    await first.prompts.set_transcript(first.prompts.get("anna"), "Said by Anna.", "manual")

    again = await second.prompts.add("anna", io.BytesIO(wav_file(1.0)))
    assert again == first.prompts.get("anna")
    assert await stored_prompts(second) == [again]


async def test_a_prompt_deleted_by_another_server_stays_deleted(homes: list[Home]) -> None:
    first, second = homes
    await first.prompts.add("anna", io.BytesIO(wav_file(1.0)))
    await second.prompts.load()
    await first.prompts.delete("anna")

    with pytest.raises(NotFound):
        await second.prompts.set_transcript(second.prompts.get("anna"), "Said by Anna.", "manual")
    assert await stored_prompts(second) == []


async def test_a_voice_is_not_made_over_a_prompt_of_another_server(homes: list[Home]) -> None:
    first, second = homes
    added = await first.prompts.add("anna", io.BytesIO(wav_file(1.0)))

    with pytest.raises(Conflict, match="Audio prompt 'anna' exists already"):
        await CustomVoices(second.prompts, second.voices).create(
            "anna", io.BytesIO(wav_file(2.0)), transcript=None, consent="given"
        )
    assert await stored_prompts(second) == [added]


async def test_a_recording_added_by_two_servers_is_that_of_the_later_one(
    homes: list[Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = pause_changes(monkeypatch)
    first, second = homes
    adding = [asyncio.create_task(first.prompts.add("anna", io.BytesIO(wav_file(1.0))))]
    await until(begun.is_set)
    adding.append(asyncio.create_task(second.prompts.add("anna", io.BytesIO(wav_file(2.0)))))
    await until(lambda: is_waiting(first, adding[1]))
    go_on.set()
    earlier, later = await asyncio.gather(*adding)

    assert later.created_at == earlier.created_at
    assert await stored_prompts(second) == [later]


async def test_a_discovery_keeps_what_another_server_knows(homes: list[Home], database_url: str) -> None:
    first, second = homes
    beside = Home(first.data, database_url)
    await beside.open()
    made = await CustomVoices(first.prompts, first.voices).create(
        "anna", io.BytesIO(wav_file(1.0)), transcript=None, consent="given"
    )

    assert await beside.prompts.discover() == []

    assert beside.prompts.all == {"anna": made.prompt}
    assert await stored_prompts(second) == [made.prompt]
    await beside.database.close()


async def test_a_discovery_keeps_a_recording_that_another_server_repairs(
    homes: list[Home], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = homes
    await first.prompts.add("anna", io.BytesIO(wav_file(1.0)))
    beside = Home(first.data, database_url)
    await beside.open()
    path = first.folder.path / "anna.wav"
    path.write_bytes(b"no audio")
    begun, go_on = pause_changes(monkeypatch)
    repairing = asyncio.create_task(first.prompts.add("anna", io.BytesIO(wav_file(2.0))))
    await until(begun.is_set)
    discovering = asyncio.create_task(beside.prompts.discover())
    await until(lambda: is_waiting(first, discovering))
    go_on.set()
    repaired, _ = await asyncio.gather(repairing, discovering)

    assert beside.prompts.all == {"anna": repaired}
    assert await stored_prompts(second) == [repaired]
    await beside.database.close()


async def test_an_import_waits_until_another_has_removed_its_journal(
    homes: list[Home], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    cleanup = RecoverableChange.cleanup

    def cleanup_later(change: RecoverableChange) -> None:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(60)
        cleanup(change)

    first, _ = homes
    beside = Home(first.data, database_url)
    await first.furnish()
    await beside.open()
    with await first.library.export([]) as archive:
        content = archive.read()
    monkeypatch.setattr(RecoverableChange, "cleanup", cleanup_later)
    imports = [asyncio.create_task(first.library.add(io.BytesIO(content), overwrite=True))]
    await until(begun.is_set)
    imports.append(asyncio.create_task(beside.library.add(io.BytesIO(content), overwrite=True)))
    await until(lambda: is_waiting(first, imports[1]))
    waited = not imports[1].done()
    go_on.set()
    await asyncio.gather(*imports)

    assert waited
    assert not (first.folder.path / JOURNAL).exists()
    await beside.database.close()


async def test_an_import_replaces_nothing_that_another_server_has_just_added(homes: list[Home]) -> None:
    first, second = homes
    await first.furnish()
    with await first.library.export([]) as archive:
        await first.prompts.add("anna", io.BytesIO(wav_file(2.0)))
        before = await stored_prompts(first)
        with pytest.raises(Conflict, match="another server has just added"):
            await second.library.add(archive)

    assert await stored_prompts(first) == before
    assert not list(second.folder.path.iterdir())


async def stored_prompts(home: Home) -> list[Prompt]:
    async with home.database.reads() as session:
        return [Prompt.of(row) for row in await session.scalars(select(AudioPrompt))]


async def is_waiting(home: Home, task: asyncio.Task[Any]) -> bool:
    """Return whether a transaction waits for a lock of another one, or the task has ended."""
    async with home.database.reads() as session:
        waiting = await session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        return task.done() or bool(waiting)
