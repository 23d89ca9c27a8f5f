"""POST and DELETE /v1/audio/voices: a voice and its recording in one step."""

from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.settings import Settings
from tests.each import each
from tests.recordings import wav_file
from tests.rows import execute, refuse_changes
from tests.waiting import early_in_a_minute

Client = AsyncTestClient[Litestar]
ROUTE = "/v1/audio/voices"


async def create(client: Client, name: str, content: bytes | None = None, **fields: str) -> httpx.Response:
    answer: httpx.Response = await client.post(
        ROUTE,
        data={"name": name, **fields},
        files={"audio_sample": ("sample.wav", content or wav_file(1.0))},
    )
    return answer


async def created(client: Client, name: str, **fields: str) -> str:
    answer = await create(client, name, None, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def mappings(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/voice_mappings")).json()
    return found


async def prompts(client: Client) -> list[str]:
    listed = (await client.get("/audio_prompts")).json()["audio_prompts"]
    return [prompt["prompt_id"] for prompt in listed]


def consents(settings: Settings) -> dict[str, str | None]:
    return dict(execute(settings.sqlalchemy_url, "SELECT prompt_id, consent FROM audio_prompts"))


def files(settings: Settings) -> set[str]:
    return {path.name for path in settings.audio_prompts.iterdir()}


async def test_one_request_makes_a_voice_that_can_be_used(client: Client, settings: Settings) -> None:
    answer = await create(client, "Anna Müller", transcript="I am Anna.", consent="cons_1234")

    made = answer.json()
    assert made == {
        "id": "anna-muller",
        "object": "audio.voice",
        "type": "audio_sample",
        "name": "Anna Müller",
        "created_at": made["created_at"],
        "transcript": "I am Anna.",
        "needs_review": False,
        "note": None,
    }
    assert isinstance(made["created_at"], int)
    voice = (await mappings(client))["anna-muller"]
    assert (voice["audio_prompt"], voice["display_name"]) == ("anna-muller", "Anna Müller")
    metadata = (await client.get("/audio_prompts/metadata/anna-muller")).json()
    assert (metadata["transcript"], metadata["transcript_source"]) == ("I am Anna.", "manual")
    assert consents(settings) == {"anna-muller": "cons_1234"}
    speech = await client.post("/v1/audio/speech", json={"input": "Hello.", "voice": "anna-muller"})
    assert speech.status_code == 200


@pytest.mark.parametrize(
    ("name", "voice_id"),
    [
        ("My_Voice.2", "My_Voice.2"),
        ("Grand-père", "grand-pere"),
        ("Straße 7", "strasse-7"),
        ("  two words ", "two-words"),
        ("Анна", "voice-25f4b213"),
        ("Анна 2", "2-f6b202b6"),
        ("!?", "voice-8faf838e"),
        ("upload", "upload-ff4085ad"),
        ("con", "con-1143da2b"),
        ("x" * 100, "x" * 55 + "-09ecb6eb"),
    ],
)
async def test_the_id_is_derived_from_the_name(client: Client, name: str, voice_id: str) -> None:
    assert await created(client, name) == voice_id
    assert (await mappings(client))[voice_id]["display_name"] == name.strip()
    assert (await create(client, name)).status_code == 409


@pytest.mark.parametrize("name", ["Aria", "zara", "ARIA"])
async def test_a_taken_name_is_a_conflict_and_changes_nothing(
    client: Client, settings: Settings, name: str
) -> None:
    before = await mappings(client)
    answer = await create(client, name)

    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["type"]) == ("conflict", "name", "invalid_request_error")
    assert "exists already" in error["message"]
    assert await mappings(client) == before
    assert not files(settings)


async def test_a_recording_or_a_file_of_that_name_is_never_overwritten(
    client: Client, settings: Settings
) -> None:
    upload = {"audio_file": ("x.wav", wav_file(2.0))}
    await client.post("/audio_prompts/upload", data={"prompt_id": "anna"}, files=upload)
    (settings.audio_prompts / "ben.mp3").write_bytes(b"not discovered yet")

    for name in ("Anna", "anna", "ben"):
        answer = await create(client, name)
        assert (answer.status_code, answer.json()["error"]["param"]) == (409, "name")

    assert files(settings) == {"anna.wav", "ben.mp3"}
    assert not {"Anna", "anna", "ben"} & (await mappings(client)).keys()


@each(
    ("fields", "content", "status", "param", "message"),
    [
        ({}, b"This is no audio." * 100, 422, "audio_sample", "cannot be decoded"),
        ({}, wav_file(0.2), 422, "audio_sample", "0.5 to 60 s"),
        ({"transcript": "[S1]"}, None, 422, "transcript", "no spoken words"),
        ({"transcript": "x" * 4097}, None, 422, "transcript", "4,096"),
        ({"ref_text": "x" * 4097}, None, 422, "ref_text", "4,096"),
        ({"name": " \n "}, None, 422, "name", "1 to 128 characters"),
        ({"name": "x" * 129}, None, 422, "name", "1 to 128 characters"),
        ({"type": "prompt", "prompt": "a deep voice"}, None, 422, "type", "audio_sample"),
    ],
)
async def test_refusals_are_openai_errors_and_leave_nothing(
    client: Client,
    settings: Settings,
    fields: dict[str, str],
    content: bytes | None,
    status: int,
    param: str,
    message: str,
) -> None:
    before = await mappings(client)
    answer = await create(client, **{"name": "anna", "content": content, **fields})  # type: ignore[arg-type]

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert message in error["message"]
    assert not files(settings)
    assert await mappings(client) == before


async def test_incomplete_forms_name_the_missing_field(client: Client) -> None:
    file = {"audio_sample": ("x.wav", wav_file(1.0))}
    other = {"other": ("x.wav", b"")}
    assert (await client.post(ROUTE, files=file)).json()["error"]["param"] == "name"
    without = await client.post(ROUTE, data={"name": "anna"}, files=other)
    assert without.json()["error"]["param"] == "audio_sample"
    assert (await client.post(ROUTE, json={"name": "anna", "prompt": "deep"})).status_code == 415


async def test_vllm_omnis_name_of_the_transcript_is_understood(client: Client) -> None:
    assert (await create(client, "anna", ref_text="I am Anna.")).json()["transcript"] == "I am Anna."
    both = await create(client, "ben", ref_text="Not this.", transcript="I am Ben.")
    assert both.json()["transcript"] == "I am Ben."


async def test_the_voice_is_not_made_if_its_recording_cannot_be_stored(
    client: Client, settings: Settings
) -> None:
    settings.audio_prompts.mkdir(exist_ok=True)
    refuse_changes(settings.sqlalchemy_url, "voice_mappings")

    assert (await create(client, "anna")).status_code == 503
    assert not files(settings)
    assert await prompts(client) == []
    assert "anna" not in await mappings(client)


async def test_deleting_the_voice_deletes_its_recording(client: Client, settings: Settings) -> None:
    voice_id = await created(client, "Анна", transcript="I am Anna.")

    answer = await client.delete(f"{ROUTE}/{voice_id}")

    assert answer.json() == {"id": voice_id, "object": "audio.voice.deleted", "deleted": True}
    assert voice_id not in await mappings(client)
    assert await prompts(client) == []
    assert not files(settings)
    assert (await client.delete(f"{ROUTE}/{voice_id}")).status_code == 404
    assert await created(client, "Анна") == voice_id


async def test_a_recording_that_another_voice_uses_is_kept(client: Client) -> None:
    await created(client, "anna", transcript="I am Anna.")
    await client.post("/voice_mappings", json={"voice_id": "copy", "audio_prompt": "anna"})

    assert (await client.delete(f"{ROUTE}/anna")).status_code == 200
    assert await prompts(client) == ["anna"]
    assert (await client.delete(f"{ROUTE}/copy")).status_code == 200
    assert await prompts(client) == []


async def test_a_recording_made_by_another_route_is_kept(client: Client) -> None:
    file = {"audio_file": ("x.wav", wav_file(2.0))}
    await client.post("/audio_prompts/upload", data={"prompt_id": "mine"}, files=file)
    await client.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "mine"})
    await created(client, "anna")
    await client.post("/audio_prompts/upload", data={"prompt_id": "anna"}, files=file)

    for voice_id in ("me", "anna"):
        assert (await client.delete(f"{ROUTE}/{voice_id}")).status_code == 200
    assert await prompts(client) == ["mine", "anna"]


async def test_consent_stays_with_the_recording(client: Client, settings: Settings) -> None:
    await created(client, "anna", consent="Анна agrees.")
    await client.put("/audio_prompts/anna/transcript", json={"transcript": "I am Anna."})
    await client.post("/audio_prompts/discover")

    assert consents(settings) == {"anna": "Анна agrees."}


async def test_built_in_and_unknown_voices_are_not_deleted(client: Client) -> None:
    await client.post("/voice_mappings", json={"voice_id": "kai", "style": "calm"})
    refused = await client.delete(f"{ROUTE}/kai")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert "built in" in refused.json()["error"]["message"]
    assert (await mappings(client))["kai"]["style"] == "calm"

    for unknown in ("nobody", "alloy", "Kai"):
        answer = await client.delete(f"{ROUTE}/{unknown}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "invalid_voice_id")


async def test_deleting_a_voice_clears_it_as_partner(client: Client) -> None:
    await created(client, "anna")
    await client.post("/voice_mappings", json={"voice_id": "me", "partner": "anna"})
    await client.delete(f"{ROUTE}/anna")

    assert (await mappings(client))["me"]["partner"] is None


async def test_creating_counts_as_an_upload(settings: Settings) -> None:
    limited = msgspec.structs.replace(settings, rate_limit_upload=1, api_keys=("key",))
    async with AsyncTestClient(create_app(limited), raise_server_exceptions=False) as client:
        early_in_a_minute()
        assert (await create(client, "anna")).status_code == 401
        client.headers["Authorization"] = "Bearer key"
        assert (await create(client, "anna")).status_code == 200
        refused = await create(client, "ben")
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")


async def test_pages_of_other_sites_may_neither_create_nor_delete(client: Client) -> None:
    headers = {"Origin": "https://evil.example"}
    file = {"audio_sample": ("x.wav", wav_file(1.0))}
    created = await client.post(ROUTE, data={"name": "anna"}, files=file, headers=headers)
    deleted = await client.delete(f"{ROUTE}/anna", headers=headers)

    assert (created.status_code, deleted.status_code) == (403, 403)
    assert await prompts(client) == []
