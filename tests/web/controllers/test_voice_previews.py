"""GET /voices/{voice_id}/preview: generated once, kept until the voice changes, refused to foreign pages."""

import io
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from litestar import Litestar
from litestar.testing import AsyncTestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.services.speech.voice_previews import TEXT
from dia_server.settings import Settings
from tests.recordings import wav_file
from tests.tones import ToneModel, loader
from tests.waiting import early_in_a_minute, until

Client = AsyncTestClient[Litestar]

HOST = "127.0.0.1:7860"
LAN_HOST = "192.168.1.4:7860"
LOCAL_PAGE = "http://localhost:8000"
PUBLIC_PAGE = "https://page.example"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"


@asynccontextmanager
async def serving(settings: Settings, model: ToneModel, **changes: object) -> AsyncIterator[Client]:
    engine = Engine("preview", loader(model), max_waiting=4)
    async with AsyncTestClient(
        create_app(msgspec.structs.replace(settings, **changes), engine), raise_server_exceptions=False
    ) as client:
        await until(lambda: engine.ready)
        yield client


async def generations(client: Client) -> int:
    return int((await client.get("/stats")).json()["requests"]["total"])


async def test_the_preview_url_of_every_voice_answers_with_speech(client: Client) -> None:
    await client.post("/voice_mappings", json={"voice_id": "x.Y-1_", "display_name": "Анна"})
    listed = (await client.get("/voices")).json()["voices"]
    urls = [voice["preview_url"] for voice in listed]
    for path in ("/v1/audio/voices", "/v1/audio/voices/dia"):
        assert [voice["preview_url"] for voice in (await client.get(path)).json()["voices"]] == urls

    assert len(urls) == 7
    for url in urls:
        file = (await client.get(url)).content
        with wave.open(io.BytesIO(file)) as wav:
            assert 3 < wav.getnframes() / wav.getframerate() < 15


async def test_a_preview_is_generated_once_until_the_voice_changes(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        first = await client.get("/voices/aria/preview")
        again = await client.get("/voices/ARIA/preview")
        assert (first.status_code, first.headers["content-type"]) == (200, "audio/wav")
        assert first.headers["cache-control"] == "no-cache"
        assert again.content == first.content
        assert [(one.voice, one.text) for one in model.seen] == [("aria", f"[S1] {TEXT}")]
        await until(lambda: generations_are(client, 1))

        await client.post("/voice_mappings", json={"voice_id": "aria", "display_name": "Ария"})
        await client.get("/voices/aria/preview")
        assert len(model.seen) == 1, "a name is not heard"

        await client.post("/voice_mappings", json={"voice_id": "aria", "primary_speaker": "S2"})
        await client.get("/voices/aria/preview")
        assert model.seen[-1].text == f"[S2] {TEXT}"


async def generations_are(client: Client, count: int) -> bool:
    return await generations(client) == count


async def test_a_changed_recording_or_transcript_makes_a_new_preview(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        await client.post("/voice_mappings", json={"voice_id": "me", "audio_prompt": "me"})
        refused = await client.get("/voices/me/preview")
        assert (refused.status_code, refused.json()["error_code"]) == (422, "AUDIO_PROMPT_NOT_USABLE")

        heard = []
        for seconds, transcript in ((1.0, "One."), (1.0, "Two."), (1.5, "Two.")):
            file = {"audio_file": ("me.wav", wav_file(seconds))}
            form = {"prompt_id": "me", "transcript": transcript}
            await client.post("/audio_prompts/upload", data=form, files=file)
            for _ in range(2):
                assert (await client.get("/voices/me/preview")).status_code == 200
            assert model.seen[-1].prompt is not None
            heard.append((model.seen[-1].prompt.key, model.seen[-1].prompt.transcript))

        assert len(model.seen) == 3
        assert len(set(heard)) == 3


async def test_only_generated_previews_count_against_the_limit(settings: Settings) -> None:
    async with serving(settings, ToneModel(), rate_limit_generate=1) as client:
        early_in_a_minute()
        first = await client.get("/voices/aria/preview")
        other = await client.get("/voices/atlas/preview")
        again = await client.get("/voices/aria/preview")
        spoken = await client.post("/generate", json={"text": "Hi"})

    assert (first.status_code, first.headers["x-ratelimit-remaining"]) == (200, "0")
    assert (other.status_code, other.json()["error_code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert "retry-after" in other.headers
    assert (again.status_code, again.content) == (200, first.content)
    assert spoken.status_code == 429


async def test_an_unknown_voice_has_no_preview(client: Client) -> None:
    answer = await client.get("/voices/nobody/preview")

    assert (answer.status_code, answer.json()["error_code"]) == (404, "INVALID_VOICE_ID")


async def test_a_preview_needs_the_key(settings: Settings) -> None:
    async with serving(settings, ToneModel(), api_keys=("secret",)) as client:
        refused = await client.get("/voices/aria/preview")
        key = {"authorization": "Bearer secret", "origin": PUBLIC_PAGE}
        answered = await client.get("/voices/aria/preview", headers=key)

    assert (refused.status_code, answered.status_code) == (401, 200)


ACCEPTED: tuple[dict[str, str], ...] = (
    {},
    {"user-agent": "python-requests/2.32"},
    {"origin": LOCAL_PAGE},
    {"origin": LOCAL_PAGE, "sec-fetch-site": "cross-site", "user-agent": BROWSER},
    {"sec-fetch-site": "same-origin", "user-agent": BROWSER},
    {"sec-fetch-site": "none", "user-agent": BROWSER},
    # a browser sends no Sec-Fetch-Site to another machine without TLS
    {"host": LAN_HOST, "referer": f"http://{LAN_HOST}/", "user-agent": BROWSER},
)
REFUSED: tuple[dict[str, str], ...] = (
    {"origin": PUBLIC_PAGE},
    {"origin": PUBLIC_PAGE, "sec-fetch-site": "same-origin"},
    {"origin": "null", "user-agent": BROWSER},
    {"sec-fetch-site": "same-site", "user-agent": BROWSER},
    {"sec-fetch-site": "cross-site", "user-agent": BROWSER},
    {"sec-fetch-site": "cross-site", "referer": f"http://{HOST}/"},
    {"host": LAN_HOST, "referer": f"{PUBLIC_PAGE}/", "user-agent": BROWSER},
    {"host": LAN_HOST, "referer": "http://[", "user-agent": BROWSER},
    {"host": LAN_HOST, "user-agent": BROWSER},
)


async def test_elements_of_foreign_pages_generate_nothing(settings: Settings) -> None:
    model = ToneModel()
    async with serving(settings, model) as client:
        for headers in REFUSED:
            for path in ("/voices/aria/preview", "/voices/aria/preview/", "/voices/%61ria/preview"):
                answer = await client.get(path, headers={"host": HOST} | headers)
                assert (headers, path, answer.status_code) == (headers, path, 403)
                assert answer.json()["error_code"] == "FORBIDDEN"
                assert "DIA_CORS_ORIGINS" in answer.json()["detail"]
                assert (await client.head(path, headers={"host": HOST} | headers)).status_code == 403
        assert model.seen == []

        for headers in ACCEPTED:
            answer = await client.get("/voices/aria/preview", headers={"host": HOST} | headers)
            assert (headers, answer.status_code) == (headers, 200)


async def test_where_all_origins_are_allowed_every_page_hears_previews(settings: Settings) -> None:
    async with serving(settings, ToneModel(), cors_origins=("*",)) as client:
        headers = {"sec-fetch-site": "cross-site", "user-agent": BROWSER}
        assert (await client.get("/voices/aria/preview", headers=headers)).status_code == 200


async def test_a_preview_that_respellings_cut_into_segments_is_spoken(client: Client) -> None:
    before = await client.get("/voices/aria/preview")
    for word in ("hello", "good", "meet", "sound", "read", "words"):
        body = {"word": word, "respelling": " ".join(["extraordinarily"] * 4)}
        assert (await client.put("/pronunciations", json=body)).status_code == 200
    after = await client.get("/voices/aria/preview")

    assert (before.status_code, after.status_code) == (200, 200)
    assert len(after.content) > len(before.content)
