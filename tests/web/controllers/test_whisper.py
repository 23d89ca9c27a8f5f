import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from huggingface_hub import constants
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.services.voices.transcription import Transcription
from dia_server.services.voices.whisper import Whisper
from dia_server.settings import Settings
from tests.recordings import wav_file
from tests.transcriptions import SPANISH, heard

Client = AsyncTestClient[Litestar]


@pytest.fixture
def hearing(settings: Settings, whisper_folder: Path) -> Settings:
    """A client of a server whose Whisper transcribes uploads."""
    return msgspec.structs.replace(settings, whisper_model=str(whisper_folder), auto_transcribe=True)


@pytest.fixture
async def ears(hearing: Settings) -> AsyncIterator[Client]:
    async with AsyncTestClient(create_app(hearing), raise_server_exceptions=False) as client:
        yield client


async def upload(client: Client, prompt_id: str = "my_voice", seconds: float = 2.0) -> httpx.Response:
    answer: httpx.Response = await client.post(
        "/audio_prompts/upload",
        data={"prompt_id": prompt_id},
        files={"audio_file": ("sample.wav", wav_file(seconds))},
    )
    assert answer.status_code == 200, answer.text
    return answer


async def metadata(client: Client, prompt_id: str = "my_voice") -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/audio_prompts/metadata/{prompt_id}")).json()
    return found


async def test_status_and_load_match_the_reference(ears: Client, hearing: Settings) -> None:
    status = {
        "available": True,
        "model_loaded": False,
        "model_size": hearing.whisper_model,
        "auto_transcribe": True,
        "device": "auto",
        "error": None,
    }
    assert (await ears.get("/whisper/status")).json() == status

    assert (await ears.post("/whisper/load")).json() == {
        "message": "Whisper model loaded successfully",
        "model_size": hearing.whisper_model,
        "device": "cpu",
    }

    assert (await ears.get("/whisper/status")).json() == status | {"model_loaded": True, "device": "cpu"}


async def test_an_upload_is_transcribed(ears: Client, hearing: Settings) -> None:
    transcript = (await upload(ears)).json()["transcript"]

    assert transcript
    known = await metadata(ears)
    assert (known["transcript"], known["transcript_source"]) == (transcript, "whisper_auto")
    assert (hearing.audio_prompts / "my_voice.txt").read_text() == f"{transcript}\n"
    assert (await ears.post("/audio_prompts/discover", json={})).json()["discovered"] == []


async def test_an_upload_with_its_transcript_is_not_transcribed(ears: Client) -> None:
    answer = await ears.post(
        "/audio_prompts/upload",
        data={"prompt_id": "my_voice", "transcript": " Words of mine. "},
        files={"audio_file": ("sample.wav", wav_file(2.0))},
    )

    assert answer.json()["transcript"] == "Words of mine."
    assert (await metadata(ears))["transcript_source"] == "manual"
    assert (await ears.get("/whisper/status")).json()["model_loaded"] is False


async def test_an_upload_waits_for_its_transcript_up_to_the_limit(hearing: Settings) -> None:
    impatient = msgspec.structs.replace(hearing, transcribe_wait=0)
    async with AsyncTestClient(create_app(impatient)) as client:
        assert (await upload(client)).json()["transcript"] is None
        pending = await metadata(client)
        assert (pending["transcript"], pending["transcript_source"]) == (None, "pending")

        for _ in range(100):
            if (known := await metadata(client))["transcript_source"] != "pending":
                break
            await asyncio.sleep(0.1)
        assert known["transcript_source"] == "whisper_auto"
        assert known["transcript"]


async def test_a_transcript_pending_at_shutdown_is_made_after_the_next_start(
    hearing: Settings,
) -> None:
    deaf = msgspec.structs.replace(hearing, auto_transcribe=False)
    async with AsyncTestClient(create_app(deaf)) as client:
        await upload(client)

    async with AsyncTestClient(create_app(hearing)) as client:
        assert (await metadata(client))["transcript_source"] == "pending"


async def test_a_recording_can_be_transcribed_on_request(hearing: Settings) -> None:
    deaf = msgspec.structs.replace(hearing, auto_transcribe=False)
    async with AsyncTestClient(create_app(deaf)) as client:
        assert (await upload(client)).json()["transcript"] is None

        answer = (await client.post("/audio_prompts/my_voice/transcribe")).json()

        assert answer == {
            "message": "Transcription completed",
            "prompt_id": "my_voice",
            "transcript": (await metadata(client))["transcript"],
            "saved_to": "audio_prompts/my_voice.txt",
            "needs_review": False,
            "note": None,
        }


async def test_a_manual_transcript_is_kept(client: Client, settings: Settings) -> None:
    await upload(client)

    answer = await client.put(
        "/audio_prompts/my_voice/transcript", json={"transcript": "Manually corrected transcript text"}
    )

    assert answer.json()["saved_to"] == "audio_prompts/my_voice.txt"
    assert (await metadata(client))["transcript_source"] == "manual"
    assert (settings.audio_prompts / "my_voice.txt").read_text() == "Manually corrected transcript text\n"
    await client.post("/audio_prompts/discover", json={"force_retranscribe": False})
    assert (await metadata(client))["transcript_source"] == "manual"
    for nothing in ("", " ", "[S1]", "x" * 5000, None):
        refused = await client.put("/audio_prompts/my_voice/transcript", json={"transcript": nothing})
        assert (refused.status_code, "transcript" in refused.json()["detail"]) == (422, True)


async def test_force_retranscribe_repeats_whispers_transcripts_and_keeps_manual_ones(ears: Client) -> None:
    transcript = (await upload(ears, "heard")).json()["transcript"]
    await upload(ears, "written")
    await ears.put("/audio_prompts/written/transcript", json={"transcript": "By hand."})
    await ears.put("/audio_prompts/heard/transcript", json={"transcript": "To be corrected."})
    assert (await ears.post("/audio_prompts/heard/transcribe")).json()["transcript"] == transcript

    await ears.post("/audio_prompts/discover", json={"force_retranscribe": True})

    assert (await metadata(ears, "heard"))["transcript"] == transcript
    assert (await metadata(ears, "written"))["transcript"] == "By hand."


async def test_an_upload_succeeds_without_whisper_and_the_cause_is_reported(settings: Settings) -> None:
    without = msgspec.structs.replace(settings, whisper_model="enormous", auto_transcribe=True)
    async with AsyncTestClient(create_app(without)) as client:
        answer = (await upload(client)).json()
        assert (answer["transcript"], answer["needs_review"]) == (None, False)
        assert "send a transcript, or set DIA_WHISPER_MODEL" in answer["note"]
        known = await metadata(client)
        assert (known["transcript"], known["transcript_source"]) == (None, None)
        assert known["note"] == answer["note"]
        status = (await client.get("/whisper/status")).json()
        assert (status["available"], "neither a folder nor" in status["error"]) == (False, True)
        for path in ("/audio_prompts/my_voice/transcribe", "/whisper/load"):
            refused = await client.post(path)
            assert (refused.status_code, refused.json()["error_code"]) == (503, "WHISPER_NOT_AVAILABLE")
            assert "'enormous' cannot be loaded" in refused.json()["detail"]
            assert "send a transcript, or set DIA_WHISPER_MODEL" in refused.json()["detail"]


async def test_a_model_that_was_never_loaded_and_is_not_on_this_machine_is_not_available(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    async with AsyncTestClient(create_app(settings)) as client:
        status = (await client.get("/whisper/status")).json()

        assert (status["model_size"], status["available"], status["model_loaded"]) == ("base", False, False)
        assert "HF_HUB_OFFLINE forbids downloads" in status["error"]
        assert (
            (await upload(client)).json()["note"].endswith("PUT /audio_prompts/my_voice/transcript sets it")
        )


@pytest.fixture
def unsure(ears: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of a server whose Whisper detects Spanish, and sets a draft for every upload."""

    async def transcribe(self: Whisper, recording: bytes) -> Transcription:
        return heard("Thank you so much for watching.", SPANISH)

    monkeypatch.setattr(Whisper, "transcribe", transcribe)
    return ears


async def test_every_answer_says_that_a_transcript_needs_review(unsure: Client, hearing: Settings) -> None:
    answer = (await upload(unsure)).json()

    assert (answer["transcript"], answer["needs_review"]) == ("Thank you so much for watching.", True)
    assert "PUT /audio_prompts/my_voice/transcript confirms" in answer["note"]
    known = await metadata(unsure)
    assert (known["needs_review"], known["note"]) == (True, answer["note"])
    assert known["confidence"] == {
        "language": "es",
        "language_probability": 0.98,
        "average_log_probability": -0.2,
        "no_speech_probability": 0.01,
    }
    again = (await unsure.post("/audio_prompts/my_voice/transcribe")).json()
    assert (again["saved_to"], again["needs_review"], again["note"]) == (None, True, answer["note"])
    (hearing.audio_prompts / "other.wav").write_bytes(wav_file(1.0))
    (found,) = (await unsure.post("/audio_prompts/discover", json={})).json()["discovered"]
    assert (found["prompt_id"], found["needs_review"]) == ("other", True)


async def test_cloning_with_a_draft_is_refused_until_a_person_has_confirmed_it(unsure: Client) -> None:
    await upload(unsure)
    await unsure.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "my_voice"})
    speak = {"text": "Hello.", "voice_id": "me"}

    refused = await unsure.post("/generate", json=speak)

    assert (refused.status_code, refused.json()["error_code"]) == (422, "AUDIO_PROMPT_NOT_USABLE")
    assert "PUT /audio_prompts/my_voice/transcript confirms" in refused.json()["detail"]
    draft = (await metadata(unsure))["transcript"]
    confirmed = await unsure.put("/audio_prompts/my_voice/transcript", json={"transcript": draft})
    assert (confirmed.json()["needs_review"], confirmed.json()["note"]) == (False, None)
    assert (await unsure.post("/generate", json=speak)).status_code == 200
    known = await metadata(unsure)
    assert (known["needs_review"], known["transcript_source"], known["confidence"]) == (False, "manual", None)


async def test_a_voice_with_its_own_transcript_does_not_need_that_of_the_recording(unsure: Client) -> None:
    await upload(unsure)
    await unsure.post(
        "/voice_mappings",
        json={"voice_id": "me", "audio_prompt": "my_voice", "audio_prompt_transcript": "What I said."},
    )

    assert (await unsure.post("/generate", json={"text": "Hello.", "voice_id": "me"})).status_code == 200
    assert (await metadata(unsure))["needs_review"]


async def test_a_voice_made_over_openais_route_needs_review_too(unsure: Client) -> None:
    made = await unsure.post(
        "/v1/audio/voices", data={"name": "Ana"}, files={"audio_sample": ("a.wav", wav_file(2.0))}
    )

    assert (made.status_code, made.json()["needs_review"]) == (200, True)
    assert "PUT /audio_prompts/" in made.json()["note"]
