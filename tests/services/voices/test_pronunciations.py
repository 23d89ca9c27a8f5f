import pytest

from dia_server.db.engine import Database
from dia_server.errors import Invalid, InvalidVoiceId, NotFound
from dia_server.services.voices import pronunciations
from dia_server.services.voices.pronunciations import Pronunciation, PronunciationStore, checked
from dia_server.services.voices.service import Voice
from tests.libraries import Home

SQL, GIF = checked("SQL", "sequel"), checked("gif", "jif", "aria")


@pytest.fixture
def store(database: Database) -> PronunciationStore:
    return PronunciationStore(database.sessions)


async def stored(database: Database) -> list[Pronunciation]:
    """Return what another server, or this one after a restart, reads."""
    store = PronunciationStore(database.sessions)
    await store.load()
    return store.all


async def test_entries_are_added_replaced_and_deleted(database: Database, store: PronunciationStore) -> None:
    await store.save(GIF)
    await store.save(SQL)
    assert store.all == await stored(database) == [SQL, GIF]
    assert store.tables("aria") == [{"gif": "jif"}, {"SQL": "sequel"}]
    assert store.tables("luna") == [{"SQL": "sequel"}]

    await store.save(checked("SQL", "ess queue ell"))
    await store.delete("gif", "aria")
    assert store.all == await stored(database) == [checked("SQL", "ess queue ell")]

    with pytest.raises(NotFound, match="voice 'aria' has no pronunciation of 'SQL'"):
        await store.delete("SQL", "aria")


@pytest.mark.parametrize("replace", [False, True])
async def test_a_file_is_added_to_the_others_or_put_in_their_place(
    database: Database, store: PronunciationStore, replace: bool
) -> None:
    await store.save(SQL)
    await store.save(GIF)
    added = [checked("gif", "ghif", "aria"), checked("nguyen", "win")]

    total = await store.add(added, replace=replace)

    expected = sorted(added if replace else [SQL, *added], key=lambda entry: entry.key)
    assert store.all == await stored(database) == expected
    assert total == len(expected)
    assert await store.add([], replace=replace) == (0 if replace else 3)


async def test_a_voice_that_does_not_exist_is_refused_with_all_others(
    database: Database, store: PronunciationStore
) -> None:
    for attempt in (
        store.save(checked("gif", "jif", "nobody")),
        store.add([SQL, checked("gif", "jif", "nobody")], replace=True),
    ):
        with pytest.raises(InvalidVoiceId, match="'nobody' does not exist"):
            await attempt

    assert store.all == await stored(database) == []


async def test_the_table_is_limited(
    database: Database, store: PronunciationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pronunciations, "MAX_ENTRIES", 2)
    await store.add([SQL, GIF], replace=False)
    await store.save(SQL)  # replaces itself

    for attempt in (store.save(checked("one", "wun")), store.add([checked("one", "wun")], replace=False)):
        with pytest.raises(Invalid, match="the limit is 2 pronunciations") as caught:
            await attempt
        assert (caught.value.param, caught.value.limit) == ("word", 2)

    assert store.all == await stored(database) == [SQL, GIF]


async def test_the_entries_of_a_deleted_voice_go_and_those_of_a_reset_one_stay(
    database: Database, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = Home(tmp_path_factory.mktemp("home"), database_url)
    await home.open()
    await home.voices.save(Voice("anna"))
    for voice_id in ("anna", "aria"):
        await home.pronunciations.save(checked("gif", "jif", voice_id))

    await home.voices.delete("anna")
    await home.voices.delete("aria")

    assert home.pronunciations.all == await stored(database) == [GIF]
    await home.database.close()


@pytest.mark.parametrize(
    ("word", "respelling", "message"),
    [
        ("two words", "x", "word must be one word"),
        ("", "x", "word must be one word"),
        ("-a", "x", "word must be one word"),
        ("a_b", "x", "word must be one word"),
        ("a\0b", "x", "word must be one word"),
        ("[S1]", "x", "word must be one word"),
        ("a", "", "respelling must be one or more words"),
        ("a", "b  c", "respelling must be one or more words"),
        ("a", "b [S2] c", "respelling must be one or more words"),
        ("a", "(laughs)", "respelling must be one or more words"),
        ("a", "b\n", "respelling must be one or more words"),
    ],
)
def test_a_malformed_entry_is_refused(word: str, respelling: str, message: str) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        checked(word, respelling)

    assert (caught.value.param, caught.value.limit) == (message.partition(" ")[0], None)


def test_an_entry_that_is_too_long_is_refused_with_the_limit() -> None:
    assert checked("a" * 64, "b" * 64)
    for entry in (("a" * 65, "b"), ("a", "b" * 65)):
        with pytest.raises(Invalid) as caught:
            checked(*entry)
        assert caught.value.limit == 64


def test_accents_are_composed_and_apostrophes_straight() -> None:
    assert checked("cafe\u0301", "d\u2019or") == Pronunciation("caf\u00e9", "d'or")
