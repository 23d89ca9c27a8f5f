"""Voice design over HTTP: candidates of a voice's anchor are made in the background, and one is kept."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.audio import wav
from dia_server.engine.engine import Engine
from dia_server.services.speech.anchor_maker import SCRIPT
from dia_server.services.speech.candidate_maker import MAX_PENDING
from dia_server.settings import Settings
from tests.cloning import CloningModel
from tests.each import each
from tests.postgres import keeps_young_files
from tests.recordings import wav_file
from tests.tones import Gate, loader
from tests.waiting import early_in_a_minute, until

Client = AsyncTestClient[Litestar]


@asynccontextmanager
async def served(conf: Settings, model: CloningModel) -> AsyncIterator[Client]:
    engine = Engine("dia", loader(model), max_waiting=64)
    async with AsyncTestClient(create_app(conf, engine)) as client:
        await until(lambda: engine.ready)
        yield client


async def ask(client: Client, voice_id: str = "aria", **wish: object) -> list[dict[str, Any]]:
    answer = await client.post(f"/voices/{voice_id}/candidates", json=wish)
    assert answer.status_code == 202, answer.text
    candidates: list[dict[str, Any]] = answer.json()["candidates"]
    return candidates


async def listed(client: Client, voice_id: str = "aria") -> list[dict[str, Any]]:
    candidates: list[dict[str, Any]] = (await client.get(f"/voices/{voice_id}/candidates")).json()[
        "candidates"
    ]
    return candidates


async def finished(client: Client, voice_id: str = "aria") -> list[dict[str, Any]]:
    """Wait until no candidate of the voice is pending; return all."""

    async def is_finished() -> bool:
        return all(
            one["status"] != "pending" and not one["checking"] for one in await listed(client, voice_id)
        )

    await until(is_finished)
    return await listed(client, voice_id)


def by_seed(seed: int) -> float:
    return 100.0 + 20 * seed


async def test_candidates_are_accepted_at_once_and_made_side_by_side(settings: Settings) -> None:
    gate = Gate()
    model = CloningModel(slots=8, before_step=gate, pitch=by_seed)
    async with served(settings, model) as client:
        accepted = await ask(client, seed=1)
        assert [one["status"] for one in accepted] == ["pending"] * 4
        assert [one["seed"] for one in accepted] == [1, 2, 3, 4]
        assert {one["audio_url"] for one in accepted} == {None}

        async def all_are_queued() -> bool:
            active: int = (await client.get("/health")).json()["active_jobs"]
            return active == 4

        await until(all_are_queued)
        gate.open()
        candidates = await finished(client)
        first = candidates[0]
        audio = await client.get(first["audio_url"])

    assert model.most == 4
    assert [utterance.text for utterance in model.seen] == [f"[S1] {SCRIPT}"] * 4
    assert {one["candidate_id"] for one in candidates} == {one["candidate_id"] for one in accepted}
    assert first["faults"] == []
    assert first["error"] is first["word_errors"] is None
    assert first["pitch"] == pytest.approx(by_seed(first["seed"]), rel=0.02)
    samples = wav.samples(audio.content[wav.HEADER_LENGTH :])
    assert len(samples) / 44_100 == pytest.approx(first["duration"])
    assert 8 < first["duration"] < 10


async def test_they_can_be_heard_as_they_come(settings: Settings) -> None:
    gate = Gate()

    class Holding(CloningModel):
        def step(self) -> Any:
            if any(left == 2 and self.running[slot].seed == 8 for slot, left in self.left.items()):
                gate()
            return super().step()

    model = Holding()
    model.slots = 1
    async with served(msgspec.structs.replace(settings, max_batch=1), model) as client:
        await ask(client, seed=7, count=2)
        await until(gate.entered.is_set)

        async def first_is_ready() -> bool:
            return any(one["status"] == "completed" for one in await listed(client))

        await until(first_is_ready)
        ready, waiting = await listed(client)
        assert (ready["seed"], waiting["seed"], waiting["status"]) == (7, 8, "pending")
        assert (await client.get(ready["audio_url"])).status_code == 200
        early = await client.get(f"/voices/aria/candidates/{waiting['candidate_id']}/audio")
        kept = await client.post("/voices/aria/anchor", json={"candidate_id": waiting["candidate_id"]})
        gate.open()
        await finished(client)

    assert (early.status_code, early.json()["error_code"]) == (409, "CONFLICT")
    assert (kept.status_code, kept.json()["param"]) == (409, "candidate_id")


async def test_the_style_ranks_them_by_pitch(settings: Settings) -> None:
    async with served(settings, CloningModel(pitch=by_seed)) as client:
        await ask(client, seed=1, count=3, style="deep")
        deep = await finished(client)
        await ask(client, seed=1, count=3, style="bright")
        bright = await finished(client)
        await ask(client, "zara", seed=1, count=3)  # its style is deep
        zara = await finished(client, "zara")

    assert [one["seed"] for one in deep] == [one["seed"] for one in zara] == [1, 2, 3]
    assert [one["seed"] for one in bright] == [3, 2, 1]


async def test_other_styles_prefer_voices_unlike_the_others(settings: Settings) -> None:
    async with served(settings, CloningModel(pitch=by_seed)) as client:
        await ask(client, "atlas", seed=2, count=1)
        (atlas,) = await finished(client, "atlas")
        await client.post("/voices/atlas/anchor", json={"candidate_id": atlas["candidate_id"]})
        await ask(client, seed=1, count=4)
        aria = await finished(client)

    assert [one["seed"] for one in aria] == [4, 1, 3, 2]  # atlas is at 140 Hz


async def test_a_kept_candidate_is_the_voice_from_then_on(settings: Settings) -> None:
    model = CloningModel(pitch=by_seed)
    async with served(settings, model) as client:
        before = (await client.get("/voices/aria/preview")).content
        await ask(client, seed=5, count=2)
        first, second = await finished(client)
        kept = await client.post("/voices/aria/anchor", json={"candidate_id": second["candidate_id"]})
        model.seen.clear()
        await client.post("/generate", json={"text": "Hello.", "voice_id": "aria"})
        after = (await client.get("/voices/aria/preview")).content
        (aria, *_) = (await client.get("/voices")).json()["voices"]
        still = await listed(client)
    async with served(settings, CloningModel()) as client:
        (later, *_) = (await client.get("/voices")).json()["voices"]

    assert kept.status_code == 200, kept.text
    assert kept.json() == aria["anchor"] == later["anchor"]
    assert kept.json()["seed"] == second["seed"]
    assert kept.json()["pitch"] == second["pitch"]
    assert keeps_young_files(settings) or len(os.listdir(settings.anchors)) == 1
    hello, preview = model.seen
    assert hello.prompt is not None
    assert preview.prompt is not None
    assert hello.prompt.key == preview.prompt.key
    assert before != after
    assert [one["candidate_id"] for one in still] == [first["candidate_id"], second["candidate_id"]]


async def test_a_damaged_candidate_is_not_kept(settings: Settings) -> None:
    async with served(settings, CloningModel()) as client:
        await client.post("/generate", json={"text": "Hello.", "voice_id": "aria"})
        await ask(client, count=1)
        (made,) = await finished(client)
        (file,) = settings.candidates.iterdir()
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        kept = await client.post("/voices/aria/anchor", json={"candidate_id": made["candidate_id"]})
        spoken = await client.post("/generate", json={"text": "Hello.", "voice_id": "aria"})

    assert (kept.status_code, kept.json()["error_code"]) == (422, "AUDIO_PROCESSING_ERROR")
    assert spoken.status_code == 200


async def test_new_candidates_replace_the_former(settings: Settings) -> None:
    gate = Gate()
    model = CloningModel(before_step=gate)
    async with served(settings, model) as client:
        (former,) = await ask(client, count=1, seed=1)
        await until(gate.entered.is_set)
        new = await ask(client, count=2, seed=10, text="It is another text. The wind is cold.")
        gate.open()
        candidates = await finished(client)
        gone = await client.get(f"/voices/aria/candidates/{former['candidate_id']}/audio")

    assert gone.status_code == 404
    assert {one["candidate_id"] for one in candidates} == {one["candidate_id"] for one in new}
    assert {one["transcript"] for one in candidates} == {"It is another text. The wind is cold."}
    assert sorted(os.listdir(settings.candidates)) == sorted(f"{one['candidate_id']}.anchor" for one in new)


async def test_seeds_are_random_unless_given(settings: Settings) -> None:
    async with served(settings, CloningModel()) as client:
        (first,) = await ask(client, count=1)
        (second,) = await ask(client, count=1)

    assert first["seed"] != second["seed"]


async def test_deleting_cancels_them_and_frees_the_slots(settings: Settings) -> None:
    gate = Gate()
    model = CloningModel(before_step=gate)
    async with served(settings, model) as client:
        await ask(client)
        await until(gate.entered.is_set)
        deleted = await client.delete("/voices/Aria/candidates")
        gate.open()
        await until(lambda: not model.left)
        left = await listed(client)

    assert deleted.json() == {"message": "Voice 'aria' has no candidates now", "voice_id": "aria"}
    assert left == []
    assert os.listdir(settings.candidates) == []


@pytest.mark.parametrize("route", ["/voice_mappings", "/v1/audio/voices"])
async def test_a_deleted_voice_takes_its_candidates_with_it(settings: Settings, route: str) -> None:
    async with served(settings, CloningModel()) as client:
        await client.post("/voice_mappings", json={"voice_id": "new"})
        await ask(client, "new", count=1)
        await finished(client, "new")
        await client.delete(f"{route}/new")
        unknown = await client.get("/voices/new/candidates")
        await client.post("/voice_mappings", json={"voice_id": "new"})
        assert await listed(client, "new") == []

    assert (unknown.status_code, unknown.json()["error_code"]) == (404, "INVALID_VOICE_ID")
    assert keeps_young_files(settings) or os.listdir(settings.candidates) == []


async def test_unfinished_ones_are_made_after_a_restart(settings: Settings) -> None:
    class Endless(CloningModel):
        def step(self) -> dict[int, Any]:
            time.sleep(0.01)
            return {}

    first, second = Endless(), CloningModel()
    async with served(settings, first) as client:
        accepted = await ask(client, count=2, seed=3)
        await until(lambda: first.left)
    for name in ("0123.anchor", ".0123.tmp"):
        await asyncio.to_thread((settings.candidates / name).write_bytes, b"left by a crash")
    async with served(settings, second) as client:
        candidates = await finished(client)

    assert {one["candidate_id"] for one in candidates} == {one["candidate_id"] for one in accepted}
    assert {one["status"] for one in candidates} == {"completed"}
    assert keeps_young_files(settings) or len(os.listdir(settings.candidates)) == 2


async def test_silent_ones_fail_in_words(settings: Settings) -> None:
    async with served(settings, CloningModel(silent=lambda seed: seed == 1)) as client:
        await ask(client, count=2, seed=1)
        good, bad = await finished(client)
        audio = await client.get(f"/voices/aria/candidates/{bad['candidate_id']}/audio")

    assert (good["seed"], good["status"]) == (2, "completed")
    assert (bad["status"], bad["error"]) == ("failed", "Dia made no audible speech with this seed")
    assert audio.status_code == 409
    assert "Dia made no audible speech" in audio.json()["detail"]


async def test_whisper_counts_the_word_errors_if_it_is_there(
    settings: Settings, whisper_folder: Path
) -> None:
    conf = msgspec.structs.replace(settings, whisper_model=str(whisper_folder))
    async with served(conf, CloningModel()) as client:
        await ask(client, count=1)
        (candidate,) = await finished(client)

    assert candidate["word_errors"] > 0  # the model hears nothing sensible in a tone


async def test_the_preview_engine_refuses(client: Client) -> None:
    answer = await client.post("/voices/aria/candidates", json={})

    assert (answer.status_code, answer.json()["error_code"]) == (409, "CONFLICT")
    assert answer.json()["detail"].startswith("Candidates need Dia")
    assert await listed(client) == []


async def test_a_voice_with_a_recording_refuses(settings: Settings) -> None:
    async with served(settings, CloningModel()) as client:
        await ask(client, count=1)
        (candidate,) = await finished(client)
        await client.post(
            "/audio_prompts/upload",
            data={"prompt_id": "me", "transcript": "I speak like this."},
            files={"audio_file": ("me.wav", wav_file(2.0))},
        )
        await client.post("/voice_mappings", json={"voice_id": "aria", "audio_prompt": "me"})
        made = await client.post("/voices/aria/candidates", json={})
        kept = await client.post("/voices/aria/anchor", json={"candidate_id": candidate["candidate_id"]})

    for answer in (made, kept):
        assert (answer.status_code, answer.json()["param"]) == (409, "voice_id")
        assert "speaks like its recording 'me'" in answer.json()["detail"]


@each(
    ("wish", "param"),
    [
        ({"count": 0}, "count"),
        ({"count": 9}, "count"),
        ({"seed": -1}, "seed"),
        ({"style": ""}, "style"),
        ({"text": "word " * 41}, "text"),
        ({"text": "..."}, "text"),
        ({"text": "[S1] So? [S2] So."}, "text"),
        ({"text": "So. [pause:2s] So."}, "text"),
    ],
)
async def test_bad_wishes_are_refused(settings: Settings, wish: dict[str, object], param: str) -> None:
    async with served(settings, CloningModel()) as client:
        answer = await client.post("/voices/aria/candidates", json=wish)

    assert (answer.status_code, answer.json()["param"]) == (422, param), answer.text


async def test_unknown_voices_and_candidates_are_told(settings: Settings) -> None:
    async with served(settings, CloningModel()) as client:
        nobody = await client.post("/voices/nobody/candidates", json={})
        kept = await client.post("/voices/aria/anchor", json={"candidate_id": "nothing"})
        audio = await client.get("/voices/aria/candidates/nothing/audio")

    assert (nobody.status_code, nobody.json()["error_code"]) == (404, "INVALID_VOICE_ID")
    for answer in (kept, audio):
        assert (answer.status_code, answer.json()["param"]) == (404, "candidate_id")


async def test_they_count_as_generations(settings: Settings) -> None:
    async with served(msgspec.structs.replace(settings, rate_limit_generate=1), CloningModel()) as client:
        early_in_a_minute()
        await ask(client, count=1)
        answer = await client.post("/voices/aria/candidates", json={"count": 1})

    assert (answer.status_code, answer.json()["error_code"]) == (429, "RATE_LIMIT_EXCEEDED")


async def test_the_number_of_pending_ones_is_limited(settings: Settings) -> None:
    gate = Gate()
    async with served(settings, CloningModel(before_step=gate)) as client:
        for n in range(MAX_PENDING // 8):
            await client.post("/voice_mappings", json={"voice_id": f"v{n}"})
            await ask(client, f"v{n}", count=8)
        refused = await client.post("/voices/aria/candidates", json={"count": 1})
        again = await client.post("/voices/v0/candidates", json={"count": 8})
        gate.open()

    assert (refused.status_code, refused.json()["limit"]) == (503, MAX_PENDING)
    assert again.status_code == 202
