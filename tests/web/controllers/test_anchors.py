"""Anchors over HTTP: a voice without a recording has the same prompt in each request."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server import composition
from dia_server.app import create_app
from dia_server.engine.devices import Device
from dia_server.engine.engine import Engine
from dia_server.engine.types import Utterance, VoicePrompt
from dia_server.services.speech.anchor_maker import CANDIDATES, SCRIPT
from dia_server.settings import Settings
from tests.cloning import CloningModel
from tests.postgres import keeps_young_files
from tests.prompts import generated_frames
from tests.recordings import wav_file
from tests.tones import Gate, loader
from tests.waiting import early_in_a_minute, until

TEXTS = [f"This is text number {n}, and it is like no other." for n in range(10)]


@pytest.fixture
def cloning(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, rate_limit_generate=0, rate_limit_jobs=0)


@asynccontextmanager
async def served(conf: Settings, model: CloningModel) -> AsyncIterator[AsyncTestClient[Litestar]]:
    engine = Engine("dia", loader(model), max_waiting=64)
    async with AsyncTestClient(create_app(conf, engine)) as client:
        await until(lambda: engine.ready)
        yield client


def spoken(model: CloningModel) -> list[Utterance]:
    """Return the utterances of clients' texts, without those of anchors."""
    return [utterance for utterance in model.seen if SCRIPT not in utterance.text]


def prompts(model: CloningModel) -> list[VoicePrompt]:
    found = [utterance.prompt for utterance in spoken(model)]
    assert all(found)
    return [prompt for prompt in found if prompt]


def making(model: CloningModel) -> list[Utterance]:
    """Return the utterances of anchors."""
    return [utterance for utterance in model.seen if SCRIPT in utterance.text]


async def say(client: AsyncTestClient[Litestar], text: str, **fields: object) -> None:
    answer = await client.post("/generate", json={"text": text, **fields})
    assert answer.status_code == 200, answer.text


async def test_each_text_has_the_same_prompt_before_and_after_a_restart(cloning: Settings) -> None:
    before, after = CloningModel(), CloningModel()
    async with served(cloning, before) as client:
        for text in TEXTS[:5]:
            await say(client, text, voice_id="aria")
    async with served(cloning, after) as client:
        for text in TEXTS[5:]:
            await say(client, text, voice_id="aria")

    assert len(making(before)) == 1
    assert making(after) == []
    (key,) = {prompt.key for prompt in prompts(before) + prompts(after)}
    assert key
    assert {prompt.transcript for prompt in prompts(after)} == {f"[S1] {SCRIPT}"}


async def test_a_voice_is_retagged_to_the_speaker_of_the_text(cloning: Settings) -> None:
    model = CloningModel()
    async with served(cloning, model) as client:
        await say(client, "[S2] Only the second speaks.", voice_id="aria")
        await say(client, "Hello.", voice_id="aria", role="assistant")
        await say(client, "Luna is a second speaker.", voice_id="luna")

    assert [prompt.transcript for prompt in prompts(model)] == [f"[S2] {SCRIPT}"] * 3
    aria, role, luna = prompts(model)
    assert aria.key == role.key != luna.key
    assert [utterance.voice for utterance in spoken(model)] == ["aria", "aria", "luna"]


async def test_two_speakers_are_two_voices_each_by_its_own_anchor(cloning: Settings) -> None:
    model = CloningModel()
    dialogue = "[S1] Good morning. [S2] Good morning to you."
    async with served(cloning, model) as client:
        for voice in ("aria", "atlas", "luna", "kai"):
            await say(client, "Alone.", voice_id=voice)
        aria, atlas, luna, kai = (generated_frames(prompt)[0, 0] for prompt in prompts(model))
        model.seen.clear()
        await say(client, dialogue, voice_id="aria", voice_id_2="atlas")
        await say(client, dialogue, voice_id="aria")
        await say(client, dialogue, voice_id="luna")

    assert [utterance.voice for utterance in spoken(model)] == ["aria+atlas", "aria+atlas", "kai+luna"]
    for prompt, pair in zip(prompts(model), [(aria, atlas), (aria, atlas), (kai, luna)], strict=True):
        first, _, second = prompt.parts
        assert prompt.transcript == f"[S1] {SCRIPT} [S2] {SCRIPT}"
        assert (generated_frames(VoicePrompt((first,), ""))[0, 0], generated_frames(prompt)[0, 0]) == pair
        assert second is prompt.parts[-1]


async def test_a_recording_and_the_anchor_of_its_partner_speak_together(cloning: Settings) -> None:
    model = CloningModel()
    async with served(cloning, model) as client:
        await upload(client, 2.0)
        await client.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "me", "partner": "zara"})
        await say(client, "[S1] So? [S2] So!", voice_id="me")
        await say(client, "[S2] I alone.", voice_id="me")

    together, alone = prompts(model)
    assert together.transcript == f"[S1] I speak like this. [S2] {SCRIPT}"
    assert len(together.parts) == 3
    assert (alone.transcript, alone.parts[0].digest) == ("[S2] I speak like this.", together.parts[0].digest)


async def test_two_voices_whose_prompts_leave_no_room_together_speak_apart(cloning: Settings) -> None:
    model = CloningModel()
    async with served(cloning, model) as client:
        await upload(client, 24.0)
        await client.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "me"})
        await say(client, "[S1] So? [S2] So!", voice_id="me")
        await say(client, "[S1] So? [S2] So!", voice_id="me", voice_id_2="aria")

    apart = ["[S1] I speak like this.", f"[S2] {SCRIPT}"]
    assert [prompt.transcript for prompt in prompts(model)] == apart * 2


@pytest.mark.parametrize("columns", [2048, 3072])
async def test_segments_fit_into_the_columns_of_a_slot(cloning: Settings, columns: int) -> None:
    model = CloningModel()
    text = " ".join(f"This is sentence number {number} of a long text." for number in range(60))
    async with served(msgspec.structs.replace(cloning, max_columns=columns), model) as client:
        await upload(client, 17.0)
        await client.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "me"})
        await say(client, text, voice_id="me")

    asked = spoken(model)
    used = [
        utterance.prompt.frame_count + (utterance.max_tokens or 0) for utterance in asked if utterance.prompt
    ]
    assert len(used) == len(asked)
    assert max(used) <= columns
    assert (max(used) > 2048) == (columns == 3072)


async def status(client: AsyncTestClient[Litestar], job_id: str) -> str:
    job: dict[str, str] = (await client.get(f"/jobs/{job_id}")).json()
    return job["status"]


async def upload(client: AsyncTestClient[Litestar], seconds: float) -> None:
    answer = await client.post(
        "/audio_prompts/upload",
        data={"prompt_id": "me", "transcript": "I speak like this."},
        files={"audio_file": ("me.wav", wav_file(seconds))},
    )
    assert answer.status_code == 200, answer.text
    await client.put("/audio_prompts/me/transcript", json={"transcript": "I speak like this."})


async def test_text_without_words_makes_no_anchor(cloning: Settings) -> None:
    model = CloningModel()
    async with served(cloning, model) as client:
        await say(client, ".", voice_id="aria")

    assert model.seen == []


async def test_a_plan_generates_nothing(cloning: Settings) -> None:
    model = CloningModel()
    async with served(cloning, model) as client:
        answer = await client.post("/plan", json={"text": "Hello.", "voice_id": "aria"})
        (aria, *_) = (await client.get("/voices")).json()["voices"]

    assert [one["text"] for one in answer.json()["utterances"]] == ["[S1] Hello."]
    assert model.seen == []
    assert "anchor" not in aria


async def test_a_preview_counts_before_its_anchor_is_made(cloning: Settings) -> None:
    model = CloningModel()
    async with served(msgspec.structs.replace(cloning, rate_limit_generate=1), model) as client:
        early_in_a_minute()
        first = await client.get("/voices/aria/preview")
        seen = len(model.seen)
        refused = await client.get("/voices/atlas/preview")
        (_, atlas, *_) = (await client.get("/voices")).json()["voices"]

    assert (first.status_code, first.headers["x-ratelimit-remaining"]) == (200, "0")
    assert (refused.status_code, refused.json()["error_code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert len(model.seen) == seen
    assert "anchor" not in atlas


async def test_a_job_whose_recording_cannot_be_used_is_refused_at_once(cloning: Settings) -> None:
    async with served(cloning, CloningModel()) as client:
        await client.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "missing"})
        answer = await client.post(
            "/generate?async_mode=true",
            json={"text": "[S1] So? [S2] So!", "voice_id": "me", "voice_id_2": "aria"},
        )

    assert (answer.status_code, answer.json()["error_code"]) == (422, "AUDIO_PROMPT_NOT_USABLE")


async def test_a_job_is_accepted_at_once_and_makes_the_anchor_when_it_runs(cloning: Settings) -> None:
    gate = Gate()
    model = CloningModel(before_step=gate)
    async with served(cloning, model) as client:
        job = (await client.post("/generate?async_mode=true", json={"text": "Later."})).json()
        assert job["status"] == "pending"
        gate.open()

        async def completed() -> bool:
            return await status(client, job["job_id"]) == "completed"

        await until(completed)

    assert [utterance.text for utterance in model.seen] == [f"[S1] {SCRIPT}", "[S1] Later."]


async def test_a_job_does_not_change_its_voice_with_a_new_anchor(cloning: Settings) -> None:
    model = CloningModel()
    async with served(cloning, model) as client:
        await say(client, "Now.", voice_id="aria")
        gate = Gate()
        model.before_step = gate
        job = (await client.post("/generate?async_mode=true", json={"text": "Later."})).json()
        await until(gate.entered.is_set)
        deleted = await client.delete("/voices/aria/anchor")
        gate.open()

        async def ended() -> bool:
            return await status(client, job["job_id"]) == "completed"

        await until(ended)

    assert deleted.json()["message"] == "Voice 'aria' has no anchor now"
    now, later = prompts(model)
    assert now.key == later.key


async def test_voices_tell_their_anchors(cloning: Settings) -> None:
    async with served(cloning, CloningModel()) as client:
        await say(client, "Hello.", voice_id="aria")
        voices = {voice["voice_id"]: voice for voice in (await client.get("/voices")).json()["voices"]}
        mappings = (await client.get("/voice_mappings")).json()
        listed = (await client.get("/audio_prompts")).json()

    assert "anchor" not in voices["atlas"]
    anchor = voices["aria"]["anchor"]
    assert (anchor["transcript"], anchor["model"], anchor["note"]) == (SCRIPT, cloning.model, None)
    assert anchor["faults"] == []
    assert 8 < anchor["duration"] < 10
    assert mappings["aria"]["audio_prompt"] is None
    assert listed["audio_prompts"] in ([], {})


async def test_an_anchor_of_another_model_goes_on_working_with_a_note(cloning: Settings) -> None:
    async with served(cloning, CloningModel()) as client:
        await say(client, "Hello.", voice_id="aria")
    other = CloningModel()
    async with served(msgspec.structs.replace(cloning, model="someone/else"), other) as client:
        await say(client, "Hello.", voice_id="aria")
        (aria, *_) = (await client.get("/voices")).json()["voices"]

    assert making(other) == []
    assert aria["anchor"]["note"].startswith(f"Made by {cloning.model}, not by someone/else.")


async def test_a_silent_candidate_is_not_kept(cloning: Settings) -> None:
    first = CloningModel(silent=lambda seed: True)
    async with served(cloning, first) as client:
        answer = await client.post("/generate", json={"text": "Hello.", "voice_id": "aria"})
        (aria, *_) = (await client.get("/voices")).json()["voices"]
    assert (answer.status_code, answer.json()["error_code"]) == (500, "GENERATION_FAILED")
    assert "no audible anchor for voice 'aria'" in answer.json()["detail"]
    assert "anchor" not in aria
    assert len(making(first)) == 2  # a second round with another seed

    silent_seed = making(first)[0].seed
    second = CloningModel(silent=lambda seed: seed == silent_seed)
    async with served(cloning, second) as client:
        await say(client, "Hello.", voice_id="aria")
    assert len({prompt.key for prompt in prompts(second)}) == 1
    assert len(making(second)) == 2


async def test_without_anchors_the_first_segment_is_the_prompt_of_the_others(cloning: Settings) -> None:
    model = CloningModel()
    text = " ".join(f"This is sentence number {n}, which takes a while to say." for n in range(12))
    async with served(msgspec.structs.replace(cloning, voice_anchors="off"), model) as client:
        await say(client, text, voice_id="aria")

    assert making(model) == []
    first, *others = model.seen
    assert first.prompt is None
    assert len({other.prompt.key for other in others if other.prompt}) == 1


async def test_a_deleted_voice_takes_its_anchor_with_it(cloning: Settings) -> None:
    model = CloningModel()
    async with served(cloning, model) as client:
        await client.post("/voice_mappings", json={"voice_id": "new"})
        await say(client, "Hello.", voice_id="new")
        assert len(os.listdir(cloning.anchors)) == 1
        await client.delete("/voice_mappings/new")
        await client.post("/voice_mappings", json={"voice_id": "new"})
        voices = (await client.get("/voices")).json()["voices"]

    assert "anchor" not in voices[-1]
    assert keeps_young_files(cloning) or os.listdir(cloning.anchors) == []


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "accelerators", lambda: [Device("cuda:0", "H200", 1)])


@pytest.mark.usefixtures("gpu")
async def test_on_a_gpu_all_built_in_voices_get_anchors_after_the_start(cloning: Settings) -> None:
    model, again = CloningModel(slots=8), CloningModel()
    async with served(cloning, model) as client:

        async def all_made() -> bool:
            voices = (await client.get("/voices")).json()["voices"]
            return all("anchor" in voice for voice in voices)

        await until(all_made)
    async with served(cloning, again) as client:
        await say(client, "Hello.", voice_id="zara")

    assert len(making(model)) == 6 * CANDIDATES
    assert model.most == CANDIDATES
    assert making(again) == []


@pytest.mark.usefixtures("gpu")
async def test_a_request_does_not_wait_for_an_anchor_in_the_background(cloning: Settings) -> None:
    gate = Gate()
    model = CloningModel(before_step=gate)
    async with served(cloning, model) as client:
        await until(gate.entered.is_set)  # the anchor of aria, the first voice, is being made
        gate.open()
        await say(client, "Hello.", voice_id="aria")
        await say(client, "Hello.", voice_id="nova")

    assert len({prompt.key for prompt in prompts(model)}) == 2


async def test_a_voice_that_is_deleted_while_its_anchor_is_made_leaves_nothing(cloning: Settings) -> None:
    gate = Gate()
    async with served(cloning, CloningModel(before_step=gate)) as client:
        await client.post("/voice_mappings", json={"voice_id": "new"})
        body = {"text": "Hello.", "voice_id": "new"}
        job_id = (await client.post("/generate?async_mode=true", json=body)).json()["job_id"]
        await until(gate.entered.is_set)
        await client.delete("/voice_mappings/new")
        gate.open()

        async def failed() -> bool:
            return await status(client, job_id) == "failed"

        await until(failed)
        job = (await client.get(f"/jobs/{job_id}")).json()
        await client.post("/voice_mappings", json={"voice_id": "new"})
        voices = (await client.get("/voices")).json()["voices"]

    assert job["error"] == "Voice 'new' has been deleted during the request"
    assert "anchor" not in voices[-1]
    assert os.listdir(cloning.anchors) == []
