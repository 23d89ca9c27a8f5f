"""Two servers on one PostgreSQL change the same voice."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select, text

from dia_server.db.models import VoiceAnchor
from dia_server.errors import Conflict
from dia_server.services.durable_files import FileChange
from dia_server.services.voices.service import Voice
from tests.libraries import Home
from tests.postgres import ON_POSTGRES
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
    begun, go_on = threading.Event(), threading.Event()
    apply = FileChange.apply

    def apply_later(change: FileChange) -> None:
        begun.set()
        assert go_on.wait(60)
        apply(change)

    first, second = homes
    await first.voices.save(Voice("anna"))
    await second.voices.load()
    monkeypatch.setattr(FileChange, "apply", apply_later)
    keeping = asyncio.create_task(first.add_anchor("anna", seed=7))
    await until(begun.is_set)
    deleting = asyncio.create_task(second.voices.delete("anna"))

    async def waits_or_has_ended() -> bool:
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        async with first.database.reads() as session:
            return deleting.done() or bool(await session.scalar(waiting))

    await until(waits_or_has_ended)
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
