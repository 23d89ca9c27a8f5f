"""A recording inside the request: `ref_audio` and `ref_text`."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

import httpx
import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.audio.encode import encode
from dia_server.engine.engine import Engine
from dia_server.engine.types import Recording, VoicePrompt
from dia_server.services.voices.prompt_decoder import PromptDecoder
from dia_server.services.voices.transcription import Transcription
from dia_server.services.voices.whisper import Whisper
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.each import each
from tests.job_client import job, serving, submit, wait_until_finished
from tests.recordings import RATE, sound, wav_file
from tests.speech_clips import WHISPER, load_clips
from tests.tones import Gate, ToneModel

Client = AsyncTestClient[Litestar]

WORDS = "These are my words."
SENTENCE = {"text": "Hello there, it is me.", "max_tokens": 100}
LIMIT = 10 * 1024 * 1024


def encoded(recording: bytes) -> str:
    return base64.b64encode(recording).decode()


def reference(seconds: float = 1.0, pitch: float = 150.0) -> dict[str, str]:
    return {"ref_audio": encoded(wav_file(seconds, pitch=pitch)), "ref_text": WORDS}


@pytest.fixture
def model() -> ToneModel:
    return ToneModel()


@pytest.fixture
async def dia(settings: Settings, model: ToneModel) -> AsyncIterator[Client]:
    """Client of a server whose model, `model`, keeps the prompts that it was given; without anchors."""
    off = msgspec.structs.replace(settings, voice_anchors="off")
    async with serving(off, model, engine="dia") as client:
        yield client


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes in bytes of the recordings that were decoded."""
    sizes: list[int] = []
    make = PromptDecoder.make

    def counted(self: PromptDecoder, file: BinaryIO) -> bytes:
        sizes.append(file.seek(0, 2))
        return make(self, file)

    monkeypatch.setattr(PromptDecoder, "make", counted)
    return sizes


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes in bytes of the WAV files that Whisper has transcribed."""
    sizes: list[int] = []
    transcribe = Whisper.transcribe

    async def counted(self: Whisper, recording: bytes) -> Transcription:
        sizes.append(len(recording))
        return await transcribe(self, recording)

    monkeypatch.setattr(Whisper, "transcribe", counted)
    return sizes


def prompt_of(model: ToneModel, number: int = -1) -> VoicePrompt:
    prompt = model.seen[number].prompt
    assert prompt is not None
    return prompt


def digests(prompt: VoicePrompt) -> list[str]:
    assert all(isinstance(part, Recording) for part in prompt.parts)
    return [part.digest for part in prompt.parts]


async def speak(client: Client, **fields: Any) -> httpx.Response:
    answer: httpx.Response = await client.post("/generate", json={**SENTENCE, **fields})
    return answer


async def digest_of_upload(client: Client, settings: Settings, recording: bytes) -> str:
    """Return the SHA-256 of the WAV file that an upload of `recording` is stored as."""
    await client.post(
        "/audio_prompts/upload", data={"prompt_id": "same"}, files={"audio_file": ("x.wav", recording)}
    )
    return hashlib.sha256((settings.audio_prompts / "same.wav").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "prefix", ["", "data:audio/wav;base64,", "data:;base64,", "DATA:audio/x;a=b;base64,"]
)
async def test_the_reference_is_the_prompt_of_the_request(
    dia: Client, settings: Settings, model: ToneModel, prefix: str
) -> None:
    recording = wav_file(1.0)
    answer = await speak(dia, ref_audio=prefix + encoded(recording), ref_text=WORDS, voice_id="luna")

    assert answer.status_code == 200
    assert prompt_of(model).transcript == f"[S2] {WORDS}"
    assert digests(prompt_of(model)) == [await digest_of_upload(dia, settings, recording)]
    assert (model.seen[0].voice, model.seen[0].text[:4]) == ("luna", "[S2]")


async def test_any_format_and_line_breaks_are_read(dia: Client, model: ToneModel) -> None:
    lines = base64.encodebytes(encode(sound(1.0), RATE, "mp3")).decode()
    assert lines.count("\n") > 10

    assert (await speak(dia, ref_audio=lines, ref_text=WORDS)).status_code == 200
    assert len(prompt_of(model).parts) == 1


async def test_the_seed_of_the_voice_stays(dia: Client) -> None:
    plain = await speak(dia, voice_id="kai")
    cloned = await speak(dia, voice_id="kai", **reference())
    assert cloned.headers["x-seed"] == plain.headers["x-seed"]


async def test_the_reference_replaces_the_recording_of_the_first_voice_only(
    dia: Client, settings: Settings, model: ToneModel
) -> None:
    for name, pitch in (("anna", 150.0), ("ben", 100.0)):
        file = {"audio_file": ("x.wav", wav_file(1.0, pitch=pitch))}
        form = {"prompt_id": name, "transcript": f"I am {name}."}
        await dia.post("/audio_prompts/upload", data=form, files=file)
        await dia.post("/voice_mappings", json={"voice_id": name, "audio_prompt": name})

    text = "[S1] Hi. [S2] Hello."
    answer = await speak(dia, text=text, voice_id="anna", voice_id_2="ben", **reference(1.0, 220))

    assert answer.status_code == 200
    assert prompt_of(model).transcript == f"[S1] {WORDS} [S2] I am ben."
    ben = hashlib.sha256((settings.audio_prompts / "ben.wav").read_bytes()).hexdigest()
    first, _, last = digests(prompt_of(model))
    assert last == ben
    assert first == await digest_of_upload(dia, settings, wav_file(1.0, pitch=220))


async def test_a_voice_with_a_reference_needs_no_anchor(settings: Settings, model: ToneModel) -> None:
    # the model makes no frames, so it can make no anchor
    async with serving(settings, model, engine="dia") as client:
        assert (await speak(client, **reference())).status_code == 200
        assert len(model.seen) == 1
        assert (await speak(client)).status_code == 500


async def test_a_reference_with_two_speakers_is_not_joined_by_the_partner(
    dia: Client, model: ToneModel
) -> None:
    both = reference() | {"ref_text": "[S1] I am one. [S2] I am two."}
    assert (await speak(dia, text="[S1] Hi. [S2] Hello.", **both)).status_code == 200
    assert prompt_of(model).transcript == "[S1] I am one. [S2] I am two."


async def test_role_does_not_change_the_speaker_of_a_reference(dia: Client, model: ToneModel) -> None:
    await speak(dia, role="assistant", **reference())
    assert model.seen[0].text.startswith("[S1]")


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream_format": "sse"}])
async def test_openais_route_takes_a_reference(dia: Client, model: ToneModel, fields: dict[str, Any]) -> None:
    body = {"input": "Hello there.", "voice": "aria", "response_format": "pcm", **fields, **reference()}
    answer = await dia.post("/v1/audio/speech", json=body)

    assert answer.status_code == 200
    assert len(answer.content) > 1000
    assert prompt_of(model).transcript == f"[S1] {WORDS}"


async def test_a_stream_and_a_plan_take_a_reference(dia: Client, model: ToneModel) -> None:
    assert (await speak(dia, stream=True, **reference())).status_code == 200
    assert prompt_of(model).transcript == f"[S1] {WORDS}"
    text = "This is a sentence of some length. " * 20
    plain = (await dia.post("/plan", json={"text": text})).json()["utterances"]
    cloned = (await dia.post("/plan", json={"text": text, **reference(28.0)})).json()["utterances"]
    assert len(cloned) > len(plain)


async def test_identical_references_are_decoded_once(
    decoded: list[int], dia: Client, model: ToneModel
) -> None:
    same = reference()
    answers = await asyncio.gather(*(speak(dia, **same) for _ in range(6)))
    answers.append(await speak(dia, **same | {"ref_audio": f"data:audio/wav;base64,{same['ref_audio']}"}))

    assert [answer.status_code for answer in answers] == [200] * 7
    assert len(decoded) == 1
    assert len({tuple(digests(prompt_of(model, number))) for number in range(7)}) == 1
    await speak(dia, **reference(pitch=200))
    assert len(decoded) == 2


async def test_a_reference_is_never_listed_and_leaves_no_file(dia: Client, settings: Settings) -> None:
    await speak(dia, **reference())

    assert (await dia.get("/audio_prompts")).json() == {"audio_prompts": []}
    assert (await dia.post("/audio_prompts/discover")).json()["total_prompts"] == 0
    assert not list(settings.audio_prompts.iterdir())
    assert not settings.references.exists()


@each(
    ("audio", "status", "code", "message"),
    [
        ("https://example.org/me.wav", 422, "VALIDATION_ERROR", "fetches nothing"),
        ("http://127.0.0.1/me.wav", 422, "VALIDATION_ERROR", "fetches nothing"),
        ("file:///etc/passwd", 422, "VALIDATION_ERROR", "fetches nothing"),
        ("data:audio/wav,plain", 422, "VALIDATION_ERROR", "base64"),
        ("/home/me/voice.wav", 422, "VALIDATION_ERROR", "not valid base64"),
        ("UklGR", 422, "VALIDATION_ERROR", "not valid base64"),
        ("UklG*EYA", 422, "VALIDATION_ERROR", "not valid base64"),
        ("é", 422, "VALIDATION_ERROR", "not valid base64"),
        ("", 422, "VALIDATION_ERROR", "empty"),
        ("data:audio/wav;base64,", 422, "VALIDATION_ERROR", "empty"),
        (encoded(b"This is a text.\n" * 100), 422, "AUDIO_PROCESSING_ERROR", "cannot be decoded"),
        (encoded(wav_file(1.0)[:-40_000] + b"x" * 5), 200, None, ""),
        (encoded(wav_file(0.3)), 422, "AUDIO_PROCESSING_ERROR", "a voice prompt has 0.5 to 60 s"),
        (encoded(wav_file(61, rate=8000)), 422, "AUDIO_PROCESSING_ERROR", "longer than 60 s"),
        (encoded(wav_file(1.0, loudness=0)), 422, "AUDIO_PROCESSING_ERROR", "silent"),
        (encoded(bytes(LIMIT + 1)), 413, "PAYLOAD_TOO_LARGE", "10,485,760 bytes"),
        (encoded(bytes(LIMIT + 300_000)), 413, "PAYLOAD_TOO_LARGE", "10,485,760 bytes"),
        (encoded(bytes(LIMIT)), 422, "AUDIO_PROCESSING_ERROR", "cannot be decoded"),
    ],
)
async def test_unusable_references_are_refused_with_the_field(
    dia: Client, audio: str, status: int, code: str | None, message: str
) -> None:
    for route, text, mode in (
        ("/generate", "text", ""),
        ("/generate", "text", "?async_mode=true"),
        ("/v1/audio/speech", "input", ""),
    ):
        answer = await dia.post(route + mode, json={text: "Hello.", "ref_audio": audio, "ref_text": WORDS})
        assert answer.status_code == status, answer.text
        if code is not None:
            body = answer.json()
            assert (body["error_code"], body.get("param", body.get("error", {}).get("param"))) == (
                code,
                "ref_audio",
            )
            assert body["detail"].startswith("ref_audio: ")
            assert message in body["detail"]


async def test_the_transcript_is_checked(dia: Client) -> None:
    for fields in (
        {"ref_text": WORDS},
        {"ref_audio": encoded(wav_file(1.0)), "ref_text": "[S1] "},
        {"ref_audio": encoded(wav_file(1.0)), "ref_text": "x" * 4097},
    ):
        answer = await speak(dia, **fields)
        assert (answer.status_code, answer.json()["param"]) == (422, "ref_text"), answer.text
    assert (await speak(dia, ref_text=" ")).status_code == 200
    assert (await speak(dia, ref_text=None, ref_audio=None)).status_code == 200


async def test_without_whisper_the_transcript_is_required(settings: Settings) -> None:
    deaf = msgspec.structs.replace(settings, whisper_model="/no/such/model")
    async with serving(deaf, ToneModel(), engine="dia") as client:
        answer = await speak(client, ref_audio=encoded(wav_file(1.0)))

    assert (answer.status_code, answer.json()["param"]) == (422, "ref_text")
    assert "send the words" in answer.json()["detail"]


async def test_whisper_makes_a_transcript_that_can_be_trusted(
    heard: list[int], settings: Settings, model: ToneModel
) -> None:
    clips = load_clips()
    hearing = msgspec.structs.replace(settings, whisper_model=str(WHISPER))
    english = encoded(clips["en/quick_brown_fox"].path.read_bytes())
    spanish = encoded(clips["es/pangrama"].path.read_bytes())
    async with serving(hearing, model, engine="dia") as client:
        answers = await asyncio.gather(*(speak(client, ref_audio=english) for _ in range(3)))
        answers.append(await speak(client, ref_audio=english))
        assert [answer.status_code for answer in answers] == [200] * 4
        assert len(heard) == 1
        for _ in range(2):
            refused = await speak(client, ref_audio=spanish)
            assert (refused.status_code, refused.json()["param"]) == (422, "ref_text")
            assert "Whisper is not sure of them" in refused.json()["detail"]
        assert len(heard) == 2
        assert (await speak(client, ref_audio=spanish, ref_text="Hola.")).status_code == 200

    said = {prompt_of(model, number).transcript for number in range(4)}
    assert said == {f"[S1] {clips['en/quick_brown_fox'].words}"}


async def test_only_the_reference_may_exceed_the_limit_of_bodies(dia: Client) -> None:
    large = "x" * 1_100_000
    for body in (
        {**SENTENCE, "other": large},
        {**SENTENCE, "other": large, **reference()},
        {**SENTENCE, "other": {"ref_audio": large}},
    ):
        answer = await dia.post("/generate", json=body)
        assert (answer.status_code, answer.json()["limit"]) == (413, 1024 * 1024)
    mapping = {"voice_id": "me", "ref_audio": large}
    assert (await dia.post("/voice_mappings", json=mapping)).status_code == 413
    assert (await speak(dia, ref_audio="A" * 16_000_000, ref_text=WORDS)).status_code == 413


async def test_half_an_emoji_beside_a_large_reference_is_dropped(dia: Client, model: ToneModel) -> None:
    audio = encoded(wav_file(10.0))
    body = (
        f'{{"text": "Oh \\ud83d no \\\\ud83d \\ud83d\\ude00", "normalize": false, "ref_audio": "{audio}", '
        f'"ref_text": "{WORDS}"}}'
    )
    assert len(body) > 1_100_000

    headers = {"Content-Type": "application/json"}
    assert (await dia.post("/generate", content=body.encode(), headers=headers)).status_code == 200
    assert model.seen[0].text == "[S1] Oh no \\ud83d \U0001f600"


async def test_the_preview_checks_a_reference_and_ignores_it(client: Client) -> None:
    plain = await client.post("/generate", json={"text": "Hello."})
    cloned = await client.post("/generate", json={"text": "Hello.", **reference()})
    assert cloned.content == plain.content
    wrong = {"text": "Hello.", "ref_audio": "http://example.org", "ref_text": WORDS}
    assert (await client.post("/generate", json=wrong)).status_code == 422


@asynccontextmanager
async def loading(settings: Settings) -> AsyncIterator[Client]:
    """Yield a client of a server that runs no job: its model is loading, and is not asked for again."""
    gate = Gate()

    def load(_: object) -> ToneModel:
        gate()
        return ToneModel()

    app = create_app(settings, Engine("dia", load, max_waiting=8), timing=Timing(job_retry_s=1000))
    async with AsyncTestClient(app, raise_server_exceptions=False) as client:
        yield client
        gate.open()


async def test_a_queued_job_keeps_its_reference_across_a_restart(
    decoded: list[int], settings: Settings, model: ToneModel
) -> None:
    async with loading(settings) as client:
        waiting = await submit(client, voice_id="luna", **reference())
        assert (await job(client, waiting))["status"] == "pending"
    (stored,) = settings.references.iterdir()

    async with serving(settings, model, engine="dia") as client:
        assert (await wait_until_finished(client, waiting))["status"] == "completed"
        assert (await client.get("/audio_prompts")).json() == {"audio_prompts": []}
    assert len(decoded) == 1
    assert prompt_of(model).transcript == f"[S2] {WORDS}"
    assert digests(prompt_of(model)) == [stored.stem] == [hashlib.sha256(stored.read_bytes()).hexdigest()]


async def test_a_job_whose_reference_is_damaged_fails_with_the_cause(
    settings: Settings, model: ToneModel
) -> None:
    async with loading(settings) as client:
        waiting = await submit(client, **reference())
    (stored,) = settings.references.iterdir()
    stored.write_bytes(stored.read_bytes()[:-2])

    async with serving(settings, model, engine="dia") as client:
        failed = await wait_until_finished(client, waiting)
    assert (failed["status"], failed["error"]) == (
        "failed",
        "The file of the request's reference has changed",
    )
    assert not model.seen
