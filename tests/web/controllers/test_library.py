"""GET /voices/export and POST /voices/import: what the archive holds is tested in tests/services/voices."""

import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server import app
from dia_server.app import create_app
from dia_server.settings import Settings
from tests.recordings import wav_file
from tests.waiting import early_in_a_minute

Client = AsyncTestClient[Litestar]


@pytest.fixture
async def other(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """Another server, with nothing in its folder and database."""
    url = request.getfixturevalue("postgres").create_upgraded() if settings.database_url else ""
    empty = msgspec.structs.replace(settings, data_dir=str(tmp_path / "other"), database_url=url)
    async with AsyncTestClient(create_app(empty), raise_server_exceptions=False) as client:
        yield client


async def furnish(client: Client) -> None:
    files = {"audio_file": ("anna.wav", wav_file(1.0))}
    form = {"prompt_id": "anna", "transcript": "This is Anna."}
    assert (await client.post("/audio_prompts/upload", data=form, files=files)).status_code == 200
    for voice in (
        {"voice_id": "anna", "audio_prompt": "anna", "display_name": "Анна"},
        {"voice_id": "plain"},
    ):
        assert (await client.post("/voice_mappings", json=voice)).status_code == 200


async def import_into(client: Client, archive: bytes, query: str = "") -> Any:
    return await client.post(f"/voices/import{query}", files={"file": ("voices.zip", archive)})


def manifest_of(archive: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return json.loads(opened.read("library.json"))


async def test_voices_are_exported_and_imported(client: Client, other: Client) -> None:
    await furnish(client)
    exported = await client.get("/voices/export", params={"licence": "CC BY 4.0, Анна"})
    assert (exported.status_code, exported.headers["content-type"]) == (200, "application/zip")
    assert int(exported.headers["content-length"]) == len(exported.content)
    assert exported.headers["content-disposition"] == 'attachment; filename="voices.zip"'
    assert (await client.head("/voices/export")).headers["content-type"] == "application/zip"

    imported = await import_into(other, exported.content)
    assert (imported.status_code, imported.json()) == (
        200,
        {
            "message": "Voices imported: 2",
            "voices": ["anna", "plain"],
            "audio_prompts": ["anna"],
            "anchors": [],
            "licence": "CC BY 4.0, Анна",
        },
    )
    for path in ("/voices", "/voice_mappings", "/audio_prompts"):
        assert (await other.get(path)).json() == (await client.get(path)).json()
    spoken = await other.post("/generate", json={"text": "Hi.", "voice_id": "anna"})
    assert spoken.status_code == 200


async def test_chosen_voices_are_exported(client: Client) -> None:
    await furnish(client)

    chosen = await client.get("/voices/export?voice_id=plain&voice_id=aria")
    unknown = await client.get("/voices/export?voice_id=plain&voice_id=nobody")

    assert [voice["voice_id"] for voice in manifest_of(chosen.content)["voices"]] == ["plain", "aria"]
    assert (unknown.status_code, unknown.json()["error_code"]) == (404, "INVALID_VOICE_ID")


async def test_existing_voices_are_replaced_only_on_request(client: Client) -> None:
    await furnish(client)
    archive = (await client.get("/voices/export")).content

    refused = await import_into(client, archive)
    assert (refused.status_code, refused.json()["error_code"]) == (409, "CONFLICT")
    assert refused.json()["param"] == "file"
    for name in ("voice 'anna'", "voice 'plain'", "audio prompt 'anna'", "replace=true"):
        assert name in refused.json()["detail"]

    assert (await import_into(client, archive, "?replace=true")).status_code == 200
    wrong = await import_into(client, archive, "?replace=maybe")
    assert (wrong.status_code, wrong.json()["param"]) == (422, "replace")


async def test_a_damaged_archive_is_refused_in_words(client: Client) -> None:
    await furnish(client)
    archive = (await client.get("/voices/export")).content
    before = (await client.get("/voice_mappings")).json()

    for content in (b"", b"PK", archive[:-1], archive.replace(b'"format":1', b'"format":2')):
        answer = await import_into(client, content, "?replace=true")
        assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR"), content[:20]
        assert answer.json()["param"] == "file"
    assert (await client.get("/voice_mappings")).json() == before


async def test_the_form_must_have_the_file(client: Client) -> None:
    missing = await client.post("/voices/import", files={"archive": b"x"})
    no_form = await client.post("/voices/import", json={})

    assert (missing.status_code, missing.json()["param"]) == (422, "file")
    assert no_form.status_code == 415


async def test_a_licence_note_has_a_limit(client: Client) -> None:
    answer = await client.get("/voices/export", params={"licence": "x" * 2_001})

    assert (answer.status_code, answer.json()["param"], answer.json()["limit"]) == (422, "licence", 2_000)


async def test_imports_count_as_uploads(settings: Settings) -> None:
    limited = msgspec.structs.replace(settings, rate_limit_upload=1)
    async with AsyncTestClient(create_app(limited)) as client:
        early_in_a_minute()
        await import_into(client, b"")
        assert (await import_into(client, b"")).status_code == 429


@pytest.mark.parametrize(("limit", "statuses"), [(1, [200, 200, 200]), (0, [503, 503, 503])])
async def test_exports_count_as_uploads_until_they_are_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, limit: int, statuses: list[int]
) -> None:
    monkeypatch.setattr(app, "MAX_UPLOADS_PER_ADDRESS", limit)
    async with AsyncTestClient(create_app(settings)) as client:
        assert [(await client.get("/voices/export")).status_code for _ in range(3)] == statuses
