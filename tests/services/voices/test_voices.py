import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from dia_server.db.engine import Database
from dia_server.errors import InvalidVoiceId
from dia_server.services.voices.anchor_folder import AnchorFolder
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.services.voices.service import ALIASES, BUILT_IN, Voice, VoiceService


async def loaded(database: Database) -> VoiceService:
    anchors = AnchorStore(database.sessions, AnchorFolder(Path("anchors")))
    voices = VoiceService(database.sessions, anchors, PronunciationStore(database.sessions))
    await voices.load()
    return voices


async def test_the_migration_and_the_service_have_the_same_built_in_voices(database: Database) -> None:
    assert dict((await loaded(database)).all) == dict(BUILT_IN)


async def test_saved_voices_survive_a_restart(database: Database) -> None:
    narrator = Voice("narrator", "deep", "S2", "prompt", "What is said in it.", "Der Erzähler", "luna")
    await (await loaded(database)).save(narrator)

    assert (await loaded(database)).resolve("narrator") == narrator


async def test_every_openai_voice_name_resolves_to_a_voice(database: Database) -> None:
    voices = await loaded(database)

    names = "alloy ash ballad coral echo fable onyx nova sage shimmer verse marin cedar Alloy"
    assert {voices.resolve(name).voice_id for name in names.split()} == set(BUILT_IN)


async def test_a_saved_voice_takes_precedence_over_an_alias(database: Database) -> None:
    voices = await loaded(database)
    await voices.save(Voice("alloy", "own"))

    assert voices.resolve("alloy").style == "own"
    assert voices.resolve("ALLOY").style == "own"
    await voices.delete("alloy")
    assert voices.resolve("alloy").voice_id == ALIASES["alloy"]


async def test_an_id_in_another_case_resolves_unless_it_is_ambiguous(database: Database) -> None:
    voices = await loaded(database)
    await voices.save(Voice("Anna"))
    assert voices.resolve(" ARIA ").voice_id == "aria"
    assert voices.resolve("anna").voice_id == "Anna"

    await voices.save(Voice("anna"))
    assert (voices.resolve("anna").voice_id, voices.resolve("Anna").voice_id) == ("anna", "Anna")
    with pytest.raises(InvalidVoiceId, match="'Anna', 'anna' differ from it only in case"):
        voices.resolve("ANNA")


async def test_an_unknown_voice_is_named(database: Database) -> None:
    with pytest.raises(InvalidVoiceId, match="'unknown'"):
        (await loaded(database)).resolve("unknown")


def test_the_seeds_of_voices_differ_and_are_stable() -> None:
    assert len({voice.seed for voice in BUILT_IN.values()}) == len(BUILT_IN)
    assert Voice("aria").seed == 2065789540


@pytest.mark.parametrize(("voice_id", "name"), [("aria", "Aria"), ("my_voice-2", "My Voice 2"), ("_", "_")])
def test_display_names_are_derived_from_ids(voice_id: str, name: str) -> None:
    assert Voice(voice_id).name == name


async def test_one_of_several_concurrent_deletions_deletes_the_voice(database: Database) -> None:
    voices = await loaded(database)
    await voices.save(Voice("narrator"))

    results = await asyncio.gather(*[voices.delete("narrator") for _ in range(3)], return_exceptions=True)

    assert [isinstance(result, InvalidVoiceId) for result in results] == [False, True, True]
    assert "narrator" not in voices.all


async def test_a_deleted_voice_is_no_longer_a_partner(database: Database) -> None:
    voices = await loaded(database)
    await voices.save(Voice("narrator"))
    await voices.save(replace(BUILT_IN["aria"], partner="narrator"))

    await voices.delete("narrator")

    assert voices.all["aria"].partner is None
    assert (await loaded(database)).all["aria"].partner is None
    await voices.delete("aria")
    assert voices.all["aria"].partner == "atlas"


async def test_a_voice_is_not_deleted_while_it_becomes_a_partner(database: Database) -> None:
    voices = await loaded(database)
    await voices.save(Voice("narrator"))

    saved, _ = await asyncio.gather(
        voices.save(Voice("anna", partner="narrator")), voices.delete("narrator"), return_exceptions=True
    )

    assert isinstance(saved, Voice)
    assert voices.all["anna"].partner is None
    assert dict((await loaded(database)).all) == dict(voices.all)
