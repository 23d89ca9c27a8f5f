"""Texts with any number of voices: who speaks, which prompt each turn follows, and what is refused."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dia_server.settings import Settings
from tests.cloning import CloningModel
from tests.each import each
from tests.job_client import Client, wait_until_finished
from tests.stage import Stage, staged


@pytest.fixture
async def stage(settings: Settings) -> AsyncIterator[Stage]:
    async with staged(settings, CloningModel()) as stage:
        yield stage


async def test_each_turn_is_said_by_the_voice_that_its_tag_names(stage: Stage) -> None:
    text = "[voice:anna] One. [voice:Ben] Two. [voice: cleo ] Three. [VOICE:anna] Four. [voice:dan] Five."

    assert await stage.said(text) == [
        ("anna", "One."),
        ("ben", "Two."),
        ("cleo", "Three."),
        ("anna", "Four."),
        ("dan", "Five."),
    ]


async def test_plain_tags_and_untagged_text_are_the_request_s_voices(stage: Stage) -> None:
    text = "Zero. [voice:cleo] One. [S2] Two. [S1] Three."

    assert await stage.said(text, voice_id="anna", voice_id_2="ben") == [
        ("anna", "Zero."),
        ("cleo", "One."),
        ("ben", "Two."),
        ("anna", "Three."),
    ]


async def test_untagged_text_stays_with_the_request_s_voice_if_another_one_is_s2(stage: Stage) -> None:
    mapping = {"voice_id": "anna", "audio_prompt": "anna", "primary_speaker": "S2"}
    assert (await stage.client.post("/voice_mappings", json=mapping)).status_code == 200

    assert await stage.said("One. [S2] Two.", voice_id="anna", voices={"s2": "ben"}) == [
        ("anna", "One."),
        ("ben", "Two."),
    ]


async def test_a_voice_is_one_speaker_whatever_calls_it(stage: Stage) -> None:
    planned = await stage.plan("[S1] One. [voice:anna] Two. [voice:ben] Three.", voice_id="anna")

    assert planned == [("[S1] One. Two. [S2] Three.", {"S1": "anna", "S2": "ben"})]


async def test_two_named_voices_are_like_the_two_voices_of_a_request(stage: Stage) -> None:
    named = await stage.client.post(
        "/generate", json={"text": "[voice:anna] One. [voice:ben] Two.", "seed": 1}
    )
    plain = await stage.client.post(
        "/generate", json={"text": "[S1] One. [S2] Two.", "voice_id": "anna", "voice_id_2": "ben", "seed": 1}
    )

    assert named.content == plain.content


async def test_cleaning_keeps_the_voices(stage: Stage) -> None:
    planned = await stage.plan("**[voice:anna]** It costs *$5*.\n\n- [voice:ben] No!")

    assert [voices for _, voices in planned] == [{"S1": "anna", "S2": "ben"}]
    assert planned[0][0] == "[S1] It costs five dollars. [S2] No!"


async def test_an_unknown_voice_is_refused_before_anything_is_made(stage: Stage) -> None:
    status, code, param, detail = await stage.refusal("[voice:anna] One. [voice:nobody] Two.")

    assert (status, code, param) == (404, "INVALID_VOICE_ID", "text")
    assert detail.startswith("[voice:nobody]: Voice 'nobody' does not exist")


async def test_more_than_16_voices_are_refused(stage: Stage) -> None:
    for number in range(17):
        await stage.client.post("/voice_mappings", json={"voice_id": f"v{number}", "audio_prompt": "anna"})
    text = " ".join(f"[voice:v{number}] I am number {number}." for number in range(17))

    status, code, param, detail = await stage.refusal(text)

    assert (status, code, param) == (422, "VALIDATION_ERROR", "text")
    assert detail == "The text has 17 voices; the limit is 16"
    assert len(await stage.plan(text.partition("[voice:v16]")[0])) == 8


async def test_a_voice_without_a_prompt_is_refused_among_more_than_two(stage: Stage) -> None:
    status, code, _, detail = await stage.refusal("[voice:anna] One. [voice:ben] Two. [voice:luna] Three.")

    assert (status, code) == (422, "AUDIO_PROMPT_NOT_USABLE")
    assert "'luna' has no anchor" in detail
    assert "DIA_VOICE_ANCHORS" in detail


async def test_a_recording_of_two_speakers_is_refused_beside_other_voices(stage: Stage) -> None:
    transcript = {"transcript": "[S1] I am one. [S2] And I another."}
    await stage.client.put("/audio_prompts/eve/transcript", json=transcript)

    status, _, param, detail = await stage.refusal("[voice:anna] One. [voice:eve] Two.")

    assert (status, param) == (422, "voice_id")
    assert "'eve' cannot speak beside other voices" in detail
    assert await stage.plan("[voice:eve] Two.") == [("[S1] Two.", {"S1": "eve"})]


async def test_speakers_up_to_s9_are_cast_by_the_request(stage: Stage) -> None:
    text = "[S1] One. [s3] Two. [S9] Three. [S2] Four. [S3] Five."
    voices = {"S3": "cleo", "s9": "dan", "S2": "eve"}

    assert await stage.said(text, voice_id="anna", voices=voices) == [
        ("anna", "One."),
        ("cleo", "Two."),
        ("dan", "Three."),
        ("eve", "Four."),
        ("cleo", "Five."),
    ]
    body = {"input": text, "voice": "anna", "voices": voices, "response_format": "wav"}
    stage.model.seen.clear()
    await stage.client.post("/v1/audio/speech", json=body)
    assert [voice for voice, _ in stage.turns()] == ["anna", "cleo", "dan", "eve", "cleo"]


async def test_a_script_is_cast_by_names(stage: Stage) -> None:
    script = (
        "It was late.\nANNA: Who is there?\n**Ben:** Only me.\nAnd me, the wind.\nNote: he lies.\nAnna: Oh."
    )

    assert await stage.said(script, voice_id="dan", cast={"Anna": "anna", "Ben": "ben", "Cleo": "cleo"}) == [
        ("dan", "It was late."),
        ("anna", "Who is there?"),
        ("ben", "Only me. And me, the wind. Note: he lies."),
        ("anna", "Oh."),
    ]


@each(
    ("text", "fields", "refused"),
    [
        ("[S1] One. [S3] Two.", {}, (422, "VALIDATION_ERROR", "voices", "voices: [S3] has no voice; ")),
        (
            "[S4] One.",
            {"voices": {"S3": "anna"}},
            (422, "VALIDATION_ERROR", "voices", "voices: [S4] has no voice"),
        ),
        (
            "One.",
            {"voices": {"S3": "nobody"}},
            (404, "INVALID_VOICE_ID", "voices", "voices.S3: Voice 'nobody'"),
        ),
        (
            "One.",
            {"voices": {"S3": "x" * 5000}},
            (404, "INVALID_VOICE_ID", "voices", f"voices.S3: Voice '{'x' * 100}...' does not exist"),
        ),
        ("One.", {"voices": {"S3\n": "anna"}}, (422, "VALIDATION_ERROR", "voices", "voices: ")),
        (
            "One.",
            {"cast": {"\u00c9va": "anna", "e\u0301va": "ben"}},
            (422, "VALIDATION_ERROR", "cast", "cast: \u00e9va has two voices"),
        ),
        ("One.", {"voices": {"S0": "anna"}}, (422, "VALIDATION_ERROR", "voices", "voices: ")),
        ("A: One.", {"cast": {"A": "nobody"}}, (404, "INVALID_VOICE_ID", "cast", "cast.A: Voice 'nobody'")),
        ("A: One.", {"cast": {"A": "an]na"}}, (404, "INVALID_VOICE_ID", "cast", "cast.A: Voice 'an]na'")),
        (
            "One.",
            {"voices": {"S3": "anna", "s3": "ben"}},
            (422, "VALIDATION_ERROR", "voices", "voices: S3 has two voices"),
        ),
        (
            "A: One.",
            {"cast": {"A": "anna", "a ": "ben"}},
            (422, "VALIDATION_ERROR", "cast", "cast: a has two voices"),
        ),
        ("One.", {"cast": {" ": "anna"}}, (422, "VALIDATION_ERROR", "cast", "cast: ")),
        ("One.", {"cast": {"A:": "anna"}}, (422, "VALIDATION_ERROR", "cast", "cast: ")),
    ],
)
async def test_a_wrong_cast_is_refused(
    stage: Stage, text: str, fields: dict[str, Any], refused: tuple[int, str, str, str]
) -> None:
    status, code, param, detail = await stage.refusal(text, **fields)

    assert (status, code, param) == refused[:3]
    assert detail.startswith(refused[3])


async def test_a_waiting_job_keeps_all_its_voices(stage: Stage) -> None:
    body = {"text": "[voice:anna] One. [S3] Two. Cleo: no.\nCleo: Three.", "voices": {"S3": "ben"}}
    answer = await stage.client.post("/generate?async_mode=true", json=body | {"cast": {"Cleo": "cleo"}})
    await stage.client.post("/voice_mappings", json={"voice_id": "ben", "audio_prompt": "dan"})
    job = await wait_until_finished(stage.client, answer.json()["job_id"])

    assert job["status"] == "completed"
    assert stage.turns() == [("anna", "One."), ("ben", "Two. Cleo: no."), ("cleo", "Three.")]


async def test_the_preview_does_not_fold_the_case_of_tags(client: Client) -> None:
    await client.post("/voice_mappings", json={"voice_id": "aNNa"})
    plan = (await client.post("/plan", json={"text": "[voice:aNNa] tHaT is all."})).json()

    assert [(one["text"], one["voices"]) for one in plan["utterances"]] == [
        ("[S1] that is all.", {"S1": "aNNa"})
    ]
