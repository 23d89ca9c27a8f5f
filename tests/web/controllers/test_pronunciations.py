"""Routes of pronunciations, and what is said with them."""

from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.engine.types import EngineName
from dia_server.settings import Settings
from tests.each import each
from tests.job_client import serving, submit, wait_until_finished
from tests.tones import ToneModel

Client = AsyncTestClient[Litestar]

SQL = {"word": "SQL", "respelling": "sequel", "voice_id": None}


async def put(client: Client, word: str, respelling: str, voice_id: str | None = None) -> None:
    body = {"word": word, "respelling": respelling, "voice_id": voice_id}
    assert (await client.put("/pronunciations", json=body)).status_code == 200


async def listed(client: Client, **query: str) -> Any:
    return (await client.get("/pronunciations", params=query)).json()["pronunciations"]


async def plan(client: Client, text: str, **body: Any) -> Any:
    return (await client.post("/plan", json={"text": text} | body)).json()


async def test_an_entry_is_saved_listed_and_deleted(client: Client) -> None:
    saved = await client.put("/pronunciations", json={"word": " SQL ", "respelling": "sequel"})
    assert saved.json() == SQL | {"message": "Pronunciation of 'SQL' saved"}
    await put(client, "gif", "jif", "ARIA")
    await put(client, "gif", "ghif", "aria")

    own = {"word": "gif", "respelling": "ghif", "voice_id": "aria"}
    assert await listed(client) == [SQL, own]
    assert await listed(client, voice_id="Aria") == [own]
    assert await listed(client, voice_id="luna") == []

    deleted = await client.delete("/pronunciations", params={"word": "gif", "voice_id": "Aria"})
    assert deleted.json() == {
        "message": "Pronunciation of 'gif' deleted",
        "word": "gif",
        "voice_id": "aria",
    }
    assert await listed(client) == [SQL]


@each(
    ("method", "query", "body", "status", "code", "param"),
    [
        (
            "PUT",
            "",
            {"word": "a", "respelling": "b", "voice_id": "nobody"},
            404,
            "INVALID_VOICE_ID",
            "voice_id",
        ),
        ("PUT", "", {"word": "a b", "respelling": "b"}, 422, "VALIDATION_ERROR", "word"),
        ("PUT", "", {"word": "a", "respelling": "(laughs)"}, 422, "VALIDATION_ERROR", "respelling"),
        ("PUT", "", {"word": "a" * 65, "respelling": "b"}, 422, "VALIDATION_ERROR", "word"),
        ("PUT", "", {"word": "a"}, 422, "VALIDATION_ERROR", None),
        ("DELETE", "?word=a", None, 404, "NOT_FOUND", "word"),
        ("DELETE", "?word=%00", None, 404, "NOT_FOUND", "word"),
        ("DELETE", "?word=SQL&voice_id=nobody", None, 404, "INVALID_VOICE_ID", "voice_id"),
        ("DELETE", "", None, 422, "VALIDATION_ERROR", None),
        ("GET", "?voice_id=nobody", None, 404, "INVALID_VOICE_ID", "voice_id"),
    ],
)
async def test_what_cannot_be_is_refused(
    client: Client, method: str, query: str, body: Any, status: int, code: str, param: str
) -> None:
    answer = await client.request(method, f"/pronunciations{query}", json=body)

    error = answer.json()
    assert (answer.status_code, error["error_code"], error.get("param")) == (status, code, param)
    assert await listed(client) == []


async def test_the_table_is_exported_and_imported(client: Client) -> None:
    await put(client, "SQL", "sequel")
    await put(client, "gif", "jif", "aria")
    exported = await client.get("/pronunciations/export")
    assert exported.headers["content-type"].startswith("text/csv")
    assert exported.headers["content-disposition"] == 'attachment; filename="pronunciations.csv"'
    assert exported.text == "word,respelling,voice_id\r\nSQL,sequel,\r\ngif,jif,aria\r\n"

    more = "word,respelling\nnguyen,win\n"
    added = await client.post("/pronunciations/import", files={"file": ("more.csv", more)})
    assert added.json() == {"message": "Pronunciations imported: 1", "imported": 1, "total": 3}
    replaced = await client.post(
        "/pronunciations/import?replace=true", files={"file": ("all.csv", exported.content)}
    )

    assert replaced.json() == {"message": "Pronunciations imported: 2", "imported": 2, "total": 2}
    assert (await client.get("/pronunciations/export")).text == exported.text


async def test_a_file_with_an_error_changes_nothing(client: Client) -> None:
    await put(client, "SQL", "sequel")
    for content, status, message in (
        ("word,respelling\ngif,jif\n-,x\n", 422, "file, line 3: word must be one word"),
        ("word,respelling,voice_id\ngif,jif,nobody\n", 404, "file, line 2: Voice 'nobody'"),
        ("word,respelling\n" + "\n" * 2**20, 413, "file: too large; the limit is 1,048,576 bytes"),
    ):
        answer = await client.post(
            "/pronunciations/import?replace=true", files={"file": ("words.csv", content)}
        )
        assert answer.status_code == status
        assert answer.json()["detail"].startswith(message)

    assert (await client.post("/pronunciations/import", json={})).status_code == 415
    assert await listed(client) == [SQL]


async def test_a_plan_shows_what_is_said_and_what_was_replaced(client: Client) -> None:
    await put(client, "sql", "sequel")
    await put(client, "gif", "jif", "aria")
    await put(client, "gif", "ghif", "luna")

    found = await plan(client, "**SQL** [S2] sql gif", voice_id="aria", voice_id_2="luna")

    assert (found["text"], found["changed"]) == ("Sequel [S2] sequel ghif", True)
    assert [one["text"] for one in found["utterances"]] == ["[S1] Sequel [S2] sequel ghif"]
    assert found["pronunciations"] == [
        {"word": "SQL", "respelling": "Sequel"},
        {"word": "sql", "respelling": "sequel"},
        {"word": "gif", "respelling": "ghif"},
    ]
    untouched = await plan(client, "Hello.")
    assert (untouched["changed"], untouched["pronunciations"]) == (False, [])


async def test_the_voice_that_says_a_word_decides(client: Client) -> None:
    await put(client, "gif", "jif", "aria")
    await put(client, "gif", "ghif", "luna")

    async def said(text: str, **body: Any) -> str:
        return str((await plan(client, text, **body))["text"])

    assert await said("gif", voice_id="aria") == "jif"
    assert await said("gif", voice_id="luna") == "ghif"
    assert await said("[S1] gif", voice_id="luna") == "[S1] ghif"
    assert await said("gif", voice_id="atlas") == "gif"
    assert await said("gif [S1] gif", voice_id="kai", role="user") == "gif [S1] gif"
    assert await said("[S1] gif [S2] gif", voice_id="kai") == "[S1] gif [S2] ghif"  # luna is the partner
    assert await said("gif [voice:luna] gif", voice_id="kai") == "gif [voice:luna] ghif"


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\x01"])
async def test_a_tag_is_never_respelled(client: Client, space: str) -> None:
    await put(client, "luna", "loona")
    await put(client, "gif", "ghif", "luna")

    found = await plan(client, f"gif [voice:{space}luna] luna gif", voice_id="kai")

    assert [(one["text"], one["voices"]) for one in found["utterances"]] == [
        ("[S1] gif [S2] loona ghif", {"S1": "kai", "S2": "luna"})
    ]


async def test_pronunciations_apply_without_the_clean_up_too(client: Client) -> None:
    await put(client, "sql", "sequel")

    found = await plan(client, "*sql* $5", normalize=False)

    assert found["text"] == "*sequel* $5"


@pytest.mark.parametrize(("engine", "other"), [("preview", "sqlsql"), ("dia", "sQlSqL")])
async def test_words_with_capitals_are_found_before_the_preview_folds_them(
    settings: Settings, engine: EngineName, other: str
) -> None:
    conf = msgspec.structs.replace(settings, voice_anchors="off")
    async with serving(conf, ToneModel(), engine) as client:
        await put(client, "kUbEcTl", "koob control")
        found = await plan(client, "kUbEcTl, sQlSqL.")

    assert found["text"] == f"koob control, {other}."


async def test_every_way_to_speak_says_the_respelling(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        await put(client, "sql", "sequel")
        await client.post("/generate", json={"text": "My sql."})
        await client.post("/v1/audio/speech", json={"input": "My sql."})
        await wait_until_finished(client, await submit(client, text="My sql."))
        (line,) = (await client.get("/jobs")).json()["jobs"]

    assert [utterance.text for utterance in model.seen] == ["[S1] My sequel."] * 3
    assert line["text_preview"] == "My sql."


async def test_timestamps_show_the_words_as_they_are_said(client: Client) -> None:
    await put(client, "kubectl", "koob control")

    answer = await client.post("/generate", json={"text": "Run kubectl now.", "timestamps": "word"})

    assert [one["text"] for one in answer.json()["timestamps"]] == ["Run", "koob", "control", "now."]


async def test_a_long_text_is_respelled_too(client: Client) -> None:
    await put(client, "sql", "sequel")

    assert (await plan(client, "My sql. " * 300))["text"].count("sequel") == 300
