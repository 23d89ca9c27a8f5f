import os
import re

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.audio.encode import encode
from dia_server.engine.engine import Engine
from dia_server.engine.types import VoicePrompt
from dia_server.settings import Settings
from tests.prompts import recording_of
from tests.recordings import RATE, container, sound, wav_file
from tests.tones import ToneModel, loader
from tests.waiting import early_in_a_minute

Client = AsyncTestClient[Litestar]


async def upload(client: Client, prompt_id: str = "my_voice", content: bytes | None = None) -> None:
    file = ("sample.wav", content or wav_file(2.0))
    answer = await client.post(
        "/audio_prompts/upload", data={"prompt_id": prompt_id}, files={"audio_file": file}
    )
    assert answer.status_code == 200, answer.text


async def test_an_upload_response_list_and_metadata_match_the_reference(client: Client) -> None:
    uploaded = await client.post(
        "/audio_prompts/upload",
        data={"prompt_id": "my_voice"},
        files={"audio_file": ("sample.wav", wav_file(3.45))},
    )

    entry = {
        "prompt_id": "my_voice",
        "file_path": "audio_prompts/my_voice.wav",
        "duration": 3.45,
        "sample_rate": 44100,
    }
    unfinished = {
        "needs_review": False,
        "note": "The recording has no transcript; PUT /audio_prompts/my_voice/transcript sets it",
    }
    assert uploaded.json() == {
        "message": "Audio prompt uploaded successfully",
        **entry,
        "transcript": None,
        **unfinished,
    }
    assert (await client.get("/audio_prompts")).json() == {"audio_prompts": [entry]}
    metadata = (await client.get("/audio_prompts/metadata")).json()["audio_prompts"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", metadata[0].pop("created_at"))
    words = {"transcript": None, "transcript_source": None, "confidence": None}
    assert metadata == [{**entry, **words, **unfinished, "file_size": 304334}]
    assert (await client.get("/audio_prompts/metadata/my_voice")).json()["file_size"] == 304334


async def test_the_recording_can_be_downloaded(client: Client) -> None:
    await upload(client)
    answer = await client.get("/audio_prompts/my_voice/audio")

    assert answer.headers["content-type"] == "audio/wav"
    assert answer.content[:4] == b"RIFF"
    assert (await client.get("/audio_prompts/nobody/audio")).status_code == 404


async def test_a_recording_whose_file_is_gone_is_not_found(client: Client, settings: Settings) -> None:
    await upload(client)
    (settings.audio_prompts / "my_voice.wav").unlink()

    assert (await client.get("/audio_prompts/my_voice/audio")).status_code == 404


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("voice.mp3", encode(sound(1.0), RATE, "mp3")),
        ("voice.flac", encode(sound(1.0), RATE, "flac")),
        ("voice.ogg", encode(sound(1.0), RATE, "opus")),
        ("voice.m4a", container(sound(1.0), "ipod", "aac")),
        ("voice.webm", container(sound(1.0), "webm", "libopus")),
        ("voice.wav", encode(sound(1.0), RATE, "mp3")),
    ],
    ids=["mp3", "flac", "ogg", "m4a", "webm", "an mp3 with another name"],
)
async def test_the_format_is_detected_by_decoding(client: Client, name: str, content: bytes) -> None:
    for content_type in ("audio/x-anything", "application/octet-stream"):
        answer = await client.post(
            "/audio_prompts/upload",
            data={"prompt_id": "my_voice"},
            files={"audio_file": (name, content, content_type)},
        )
        assert answer.status_code == 200, answer.text


async def test_a_file_part_without_a_type_or_a_name_is_a_file(client: Client) -> None:
    for disposition in ('name="audio_file"; filename="x.wav"', 'name="audio_file"'):
        body = b"\r\n".join(
            [
                b"--edge",
                b'Content-Disposition: form-data; name="prompt_id"',
                b"",
                b"my_voice",
                b"--edge",
                b"Content-Disposition: form-data; " + disposition.encode(),
                b"",
                wav_file(1.0),
                b"--edge--",
                b"",
            ]
        )
        headers = {"Content-Type": "multipart/form-data; boundary=edge"}
        assert (await client.post("/audio_prompts/upload", content=body, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be decoded"),
        (b"This is a text.\n" * 100, "cannot be decoded"),
        (wav_file(0.3), "0.30 s; a voice prompt has 0.5 to 60 s"),
        (wav_file(61), "longer than 60 s"),
        (wav_file(1.0, loudness=0), "silent"),
    ],
    ids=["empty", "text", "short", "long", "silent"],
)
async def test_audio_that_cannot_be_used_names_the_field_and_leaves_nothing(
    client: Client, settings: Settings, content: bytes, message: str
) -> None:
    answer = await client.post(
        "/audio_prompts/upload",
        data={"prompt_id": "my_voice"},
        files={"audio_file": ("voice.wav", content)},
    )

    assert (answer.status_code, answer.json()["error_code"]) == (422, "AUDIO_PROCESSING_ERROR")
    assert answer.json()["detail"].startswith("audio_file: ")
    assert message in answer.json()["detail"]
    assert not list(settings.audio_prompts.iterdir())
    assert (await client.get("/audio_prompts")).json() == {"audio_prompts": []}


async def test_incomplete_forms_are_refused_with_the_field(client: Client) -> None:
    file = {"audio_file": ("x.wav", wav_file(1.0))}
    twice = [("audio_file", ("x.wav", wav_file(1.0))), ("audio_file", ("y.wav", wav_file(1.0)))]
    for form, status, field in (
        ({"files": file}, 422, "prompt_id"),
        ({"files": {"other": ("x", b"")}, "data": {"prompt_id": "a"}}, 422, "audio_file"),
        ({"files": twice, "data": {"prompt_id": "a"}}, 422, "audio_file"),
        ({"files": file, "data": {"prompt_id": "x" * 5000}}, 422, "prompt_id"),
        ({"files": file, "data": {"prompt_id": "../evil"}}, 422, "prompt_id"),
        ({"json": {"prompt_id": "a"}}, 415, "multipart/form-data"),
        ({"data": {"prompt_id": "a"}}, 415, "multipart/form-data"),
        ({"content": b"--edge", "headers": {"Content-Type": "multipart/form-data"}}, 415, "boundary"),
        (
            {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=edge"}},
            400,
            "form-data",
        ),
    ):
        answer = await client.post("/audio_prompts/upload", **form)
        assert (answer.status_code, field in answer.json()["detail"]) == (status, True), answer.text
    assert (await client.get("/audio_prompts")).json() == {"audio_prompts": []}


async def test_an_upload_with_an_invalid_transcript_changes_nothing(
    client: Client, settings: Settings
) -> None:
    await upload(client, "old")
    before = (await client.get("/audio_prompts/metadata")).json()

    for prompt_id in ("old", "new"):
        answer = await client.post(
            "/audio_prompts/upload",
            data={"prompt_id": prompt_id, "transcript": "[S1] [S2]"},
            files={"audio_file": ("x.wav", wav_file(1.0))},
        )
        assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR")
        assert "transcript" in answer.json()["detail"]

    assert (await client.get("/audio_prompts/metadata")).json() == before
    assert [path.name for path in settings.audio_prompts.iterdir()] == ["old.wav"]


async def test_an_upload_replaces_recording_and_transcript_together(
    client: Client, settings: Settings
) -> None:
    for seconds, words in ((1.0, "The first."), (2.0, "The second.")):
        answer = await client.post(
            "/audio_prompts/upload",
            data={"prompt_id": "mine", "transcript": words},
            files={"audio_file": ("x.wav", wav_file(seconds))},
        )
        assert answer.json()["transcript"] == words

    known = (await client.get("/audio_prompts/metadata/mine")).json()
    assert (known["transcript"], known["transcript_source"], known["duration"]) == (
        "The second.",
        "manual",
        2.0,
    )
    assert (settings.audio_prompts / "mine.txt").read_text() == "The second.\n"


async def test_unknown_prompts_are_not_found(client: Client) -> None:
    for method, path in (
        ("GET", "/audio_prompts/metadata/nobody"),
        ("GET", "/audio_prompts/metadata/..%2f..%2fetc%2fpasswd"),
        ("DELETE", "/audio_prompts/nobody"),
        ("DELETE", "/audio_prompts/..%2fdia.sqlite3"),
        ("POST", "/audio_prompts/nobody/transcribe"),
    ):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND"), path


async def test_a_prompt_in_use_is_not_deleted(client: Client) -> None:
    await upload(client)
    await client.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "my_voice"})

    refused = await client.delete("/audio_prompts/my_voice")
    assert (refused.status_code, refused.json()["error_code"]) == (409, "CONFLICT")
    assert "'me'" in refused.json()["detail"]

    await client.delete("/voice_mappings/me")
    deleted = await client.delete("/audio_prompts/my_voice")
    assert (deleted.status_code, deleted.json()["prompt_id"]) == (200, "my_voice")
    assert (await client.get("/audio_prompts")).json() == {"audio_prompts": []}


async def test_discovery_lists_new_and_unusable_files(client: Client, settings: Settings) -> None:
    await upload(client, "known")
    (settings.audio_prompts / "new.mp3").write_bytes(encode(sound(1.0), RATE, "mp3"))
    (settings.audio_prompts / "new.txt").write_text("Hello.")
    (settings.audio_prompts / "broken.wav").write_text("no audio")

    answer = (await client.post("/audio_prompts/discover", json={"force_retranscribe": False})).json()

    assert answer.pop("skipped")[0]["file_path"] == "audio_prompts/broken.wav"
    assert answer == {
        "message": "Audio prompt discovery completed",
        "total_prompts": 2,
        "discovered": [
            {
                "prompt_id": "new",
                "file_path": "audio_prompts/new.wav",
                "transcript": "Hello.",
                "needs_review": False,
            },
        ],
    }
    assert (await client.post("/audio_prompts/discover", json={})).json()["discovered"] == []


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/x-www-form-urlencoded", "text/plain"]
)
async def test_discovery_needs_no_body(client: Client, settings: Settings, content_type: str | None) -> None:
    (settings.audio_prompts / "new.wav").write_bytes(wav_file(1.0))

    headers = {"content-type": content_type} if content_type else {}
    answer = await client.post("/audio_prompts/discover", headers=headers)

    assert [found["prompt_id"] for found in answer.json()["discovered"]] == ["new"]


async def test_the_folder_is_scanned_at_start(settings: Settings) -> None:
    settings.audio_prompts.mkdir()
    (settings.audio_prompts / "mine.wav").write_bytes(wav_file(1.0))

    async with AsyncTestClient(create_app(settings)) as client:
        assert [p["prompt_id"] for p in (await client.get("/audio_prompts")).json()["audio_prompts"]] == [
            "mine"
        ]


async def test_a_folder_that_cannot_be_created_fails_uploads_but_not_the_server(settings: Settings) -> None:
    settings.audio_prompts.write_text("a file where the folder should be")

    async with AsyncTestClient(create_app(settings)) as client:
        file = {"audio_file": ("x.wav", wav_file(1.0))}
        refused = await client.post("/audio_prompts/upload", data={"prompt_id": "a"}, files=file)
        assert (refused.status_code, refused.json()["error_code"]) == (503, "STORAGE_UNAVAILABLE")
        assert (await client.post("/audio_prompts/discover", json={})).status_code == 503
        settings.audio_prompts.unlink()
        assert (await client.post("/audio_prompts/upload", data={"prompt_id": "a"}, files=file)).is_success


async def test_uploads_have_a_rate_limit(settings: Settings) -> None:
    limited = Settings(
        data_dir=settings.data_dir, engine="preview", rate_limit_upload=1, auto_transcribe=False
    )
    async with AsyncTestClient(create_app(limited)) as client:
        early_in_a_minute()
        await upload(client)
        again = await client.post("/audio_prompts/upload", data={"prompt_id": "b"})
        assert (again.status_code, again.headers["X-RateLimit-Limit"]) == (429, "1")


async def spoken_prompt(
    model: ToneModel, client: Client, **mapping: str | None
) -> tuple[int, str, VoicePrompt | None]:
    """Map a voice and generate with it; return the status, the detail and the prompt that the model got."""
    await client.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "my_voice", **mapping})
    answer = await client.post("/generate", json={"text": "Hi", "voice_id": "me"})
    if answer.status_code != 200:
        return answer.status_code, answer.json()["detail"], None
    return 200, "", model.seen[-1].prompt


async def test_a_voice_speaks_like_its_prompt(settings: Settings) -> None:
    model = ToneModel()
    engine = Engine("preview", loader(model), max_waiting=4)
    async with AsyncTestClient(create_app(settings, engine)) as client:
        status, detail, _ = await spoken_prompt(model, client)
        assert (status, "'my_voice', which does not exist" in detail) == (422, True)

        await upload(client)
        status, detail, _ = await spoken_prompt(model, client)
        assert (status, "/audio_prompts/my_voice/transcribe" in detail) == (422, True)

        await client.put("/audio_prompts/my_voice/transcript", json={"transcript": "I say  this."})
        _, _, prompt = await spoken_prompt(model, client, primary_speaker="S2")
        assert prompt is not None
        assert prompt.transcript == "[S2] I say this."
        assert recording_of(prompt).dtype == "float32"
        assert len(recording_of(prompt)) == 2 * RATE

        _, _, again = await spoken_prompt(model, client, audio_prompt_transcript="[S1] Rather [S2] this.")
        assert again is not None
        assert again.transcript == "[S1] Rather [S2] this."
        assert recording_of(again) is recording_of(prompt), "they are kept in memory"

        await upload(client, content=wav_file(1.0))
        _, _, new = await spoken_prompt(model, client, audio_prompt_transcript="Something else.")
        assert new is not None
        assert new.key != prompt.key
        assert len(recording_of(new)) == RATE

        _, _, none = await spoken_prompt(model, client, audio_prompt=None)
        assert none is None


async def test_a_recording_changed_on_disk_is_refused_as_a_prompt(client: Client, settings: Settings) -> None:
    await upload(client)
    await client.put("/audio_prompts/my_voice/transcript", json={"transcript": "I say this."})
    await client.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "my_voice"})
    file = settings.audio_prompts / "my_voice.wav"

    file.write_bytes(wav_file(3.0))
    changed = await client.post("/generate", json={"text": "Hi", "voice_id": "me"})
    file.unlink()
    missing = await client.post("/generate", json={"text": "Hi", "voice_id": "me"})

    for answer in (changed, missing):
        assert (answer.status_code, answer.json()["error_code"]) == (422, "AUDIO_PROMPT_NOT_USABLE")
        assert "'my_voice'" in answer.json()["detail"]


async def test_the_upload_form_is_documented(client: Client) -> None:
    api = (await client.get("/openapi.json")).json()

    upload = api["paths"]["/audio_prompts/upload"]["post"]
    form = upload["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["prompt_id", "audio_file"]
    assert form["properties"]["audio_file"]["format"] == "binary"
    assert upload["responses"].keys() >= {"200", "413", "415", "422", "429", "503"}
    answer = upload["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/AudioPromptUploaded"}


async def test_a_file_name_that_is_not_utf8_is_skipped_and_reported(
    client: Client, settings: Settings
) -> None:
    (settings.audio_prompts / os.fsdecode(b"f\xfcr.wav")).write_bytes(wav_file(1.0))

    answer = (await client.post("/audio_prompts/discover", json={})).json()

    assert [one["file_path"] for one in answer["skipped"]] == ["audio_prompts/f?r.wav"]


@pytest.mark.parametrize(("length", "status"), [(4096, 200), (4097, 422)])
async def test_a_transcripts_limit_counts_characters_in_any_script(
    client: Client, length: int, status: int
) -> None:
    said = {"prompt_id": "me", "transcript": "字" * length}
    uploaded = await client.post(
        "/audio_prompts/upload", data=said, files={"audio_file": ("a.wav", wav_file(2.0))}
    )

    assert uploaded.status_code == status
    assert status == 200 or "transcript" in uploaded.json()["detail"]
