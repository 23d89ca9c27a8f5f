import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from tests.each import each

Client = AsyncTestClient[Litestar]

BUILT_IN = ["aria", "atlas", "luna", "kai", "zara", "nova"]


async def test_the_voices_match_the_reference(client: Client) -> None:
    voices = (await client.get("/voices")).json()["voices"]

    assert voices[0] == {"name": "Aria", "voice_id": "aria", "preview_url": "/voices/aria/preview"}
    assert [voice["voice_id"] for voice in voices] == BUILT_IN


async def test_a_mapping_is_created_replaced_and_deleted(client: Client) -> None:
    mapping = {"voice_id": "narrator", "style": "deep", "primary_speaker": "S2"}
    created = await client.post("/voice_mappings", json=mapping)
    assert (created.status_code, created.json()["voice_id"]) == (200, "narrator")

    await client.post("/voice_mappings", json={"voice_id": "narrator", "audio_prompt": "my_prompt"})
    assert (await client.get("/voice_mappings")).json()["narrator"] == {
        "style": "neutral",
        "primary_speaker": "S1",
        "audio_prompt": "my_prompt",
        "audio_prompt_transcript": None,
        "display_name": None,
        "partner": None,
    }

    assert (await client.delete("/voice_mappings/narrator")).status_code == 200
    assert "narrator" not in (await client.get("/voice_mappings")).json()
    again = await client.delete("/voice_mappings/narrator")
    assert (again.status_code, again.json()["error_code"]) == (404, "INVALID_VOICE_ID")


async def test_a_new_voice_can_be_used_immediately(client: Client) -> None:
    await client.post("/voice_mappings", json={"voice_id": "narrator"})

    assert (await client.post("/generate", json={"text": "Hi", "voice_id": "narrator"})).status_code == 200


async def test_deleting_a_built_in_voice_resets_it(client: Client) -> None:
    original = (await client.get("/voice_mappings")).json()["luna"]
    await client.post("/voice_mappings", json={"voice_id": "luna", "style": "gloomy"})

    answer = await client.delete("/voice_mappings/luna")

    assert "reset" in answer.json()["message"]
    assert (await client.get("/voice_mappings")).json()["luna"] == original


@pytest.mark.parametrize("name", [" Анна ", "Grand-père", "桜", "x" * 128])
async def test_every_list_shows_the_display_name(client: Client, name: str) -> None:
    saved = await client.post("/voice_mappings", json={"voice_id": "anna", "display_name": name})
    assert (saved.status_code, saved.json()["display_name"]) == (200, name.strip())

    for path in ("/voices", "/v1/audio/voices", "/v1/audio/voices/dia"):
        listed = (await client.get(path)).json()["voices"]
        assert {voice["voice_id"]: voice["name"] for voice in listed}["anna"] == name.strip(), path


@each("name", ["", " ", "x" * 129, "a\tb", "a\nb", "a\u2028b", "\u200d", "\x9f"])
async def test_display_names_without_a_visible_line_of_text_are_refused(client: Client, name: str) -> None:
    answer = await client.post("/voice_mappings", json={"voice_id": "anna", "display_name": name})

    assert (answer.status_code, answer.json()["param"]) == (422, "display_name")
    assert answer.json().get("limit") in {None, 1, 128}
    assert "anna" not in (await client.get("/voice_mappings")).json()


@pytest.mark.parametrize("partner", ["nobody", "anna", "Aria", "../x", ""])
async def test_a_partner_that_is_no_other_voice_is_refused(client: Client, partner: str) -> None:
    answer = await client.post("/voice_mappings", json={"voice_id": "anna", "partner": partner})

    assert (answer.status_code, answer.json()["param"]) == (422, "partner")
    assert "anna" not in (await client.get("/voice_mappings")).json()


async def test_a_mapping_without_name_and_partner_keeps_those_of_the_voice(client: Client) -> None:
    full = {"voice_id": "anna", "display_name": "Анна", "partner": "kai"}
    await client.post("/voice_mappings", json=full)

    await client.post("/voice_mappings", json={"voice_id": "anna", "style": "calm"})
    kept = (await client.get("/voice_mappings")).json()["anna"]
    assert (kept["style"], kept["display_name"], kept["partner"]) == ("calm", "Анна", "kai")

    await client.post("/voice_mappings", json={"voice_id": "anna", "display_name": None, "partner": None})
    cleared = (await client.get("/voice_mappings")).json()["anna"]
    assert (cleared["display_name"], cleared["partner"]) == (None, None)


async def test_ids_that_could_be_paths_or_devices_are_refused(client: Client) -> None:
    for voice_id in (
        "../etc/passwd",
        ".hidden",
        "a/b",
        "a\\b",
        "",
        "x" * 65,
        "con",
        "NUL.txt",
        "new\nline",
        "a\n",
    ):
        answer = await client.post("/voice_mappings", json={"voice_id": voice_id})
        assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR"), voice_id
        assert "voice_id" in answer.json()["detail"]
