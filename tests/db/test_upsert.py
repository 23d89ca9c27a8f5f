"""Rows that are inserted or changed in one statement."""

import asyncio

from sqlalchemy import select

from dia_server.db.engine import Database
from dia_server.db.models import ConfigValue, VoiceAnchor, VoiceMapping
from dia_server.db.upsert import upsert
from tests.postgres import BOTH_DATABASES, ON_POSTGRES

ROUNDS = 20


@BOTH_DATABASES
async def test_a_row_is_inserted_then_changed(database: Database) -> None:
    rows = []
    for style in ("calm", "warm"):
        async with database.sessions.begin() as session:
            await upsert(session, VoiceMapping(voice_id="anna", style=style, primary_speaker="S1"))
        async with database.reads() as session:
            rows.append(await session.get_one(VoiceMapping, "anna"))

    inserted, changed = rows
    assert (inserted.style, changed.style) == ("calm", "warm")
    assert changed.created_at == inserted.created_at
    assert changed.updated_at > inserted.updated_at


@BOTH_DATABASES
async def test_columns_that_are_not_set_keep_their_values(database: Database) -> None:
    async with database.sessions.begin() as session:
        await upsert(
            session,
            VoiceMapping(
                voice_id="anna", style="calm", primary_speaker="S1", display_name="Anna", partner="kai"
            ),
        )
        await upsert(
            session, VoiceMapping(voice_id="anna", style="calm", primary_speaker="S2", display_name=None)
        )

    async with database.reads() as session:
        row = await session.get_one(VoiceMapping, "anna")
    assert (row.primary_speaker, row.display_name, row.partner) == ("S2", None, "kai")


@BOTH_DATABASES
async def test_values_are_converted_like_those_of_the_model(database: Database) -> None:
    anchor = VoiceAnchor(
        voice_id="anna",
        digest="0" * 64,
        transcript="Hello.",
        seed=2**40,
        model="dia",
        duration=1.5,
        faults=("silent", "clipped"),
    )
    async with database.sessions.begin() as session:
        await upsert(session, anchor)

    async with database.reads() as session:
        row = await session.get_one(VoiceAnchor, "anna")
    assert (row.faults, row.seed, row.pitch) == (("silent", "clipped"), 2**40, None)


@ON_POSTGRES
async def test_of_concurrent_writers_none_fails(database: Database) -> None:
    """With a read before the write, all find the row missing, and one can insert it."""

    async def write(name: str, value: int) -> None:
        async with database.sessions.begin() as session:
            await upsert(session, ConfigValue(name=name, value=str(value)))

    for number in range(ROUNDS):
        await asyncio.gather(*(write(f"field {number}", value) for value in range(4)))

    async with database.reads() as session:
        values = [row.value for row in await session.scalars(select(ConfigValue))]
    assert len(values) == ROUNDS
    assert set(values) <= {"0", "1", "2", "3"}
