"""A library of voices carried from one server to another, both with a small random Dia."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.dia.tiny import save_dac, save_dia, tiny_dia
from tests.live.server import Server
from tests.recordings import wav_file

SPEECH = {
    "anna": {"text": "Hello, world!", "voice_id": "anna"},
    "anna and ben": {"text": "[S1] Hello! [S2] Hi.", "voice_id": "anna", "voice_id_2": "ben"},
    "a voice with an anchor": {"text": "Hello, world!", "voice_id": "made"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dia")
    return {"model": save_dia(folder / "model", tiny_dia(ends=False)), "codec": save_dac(folder / "codec")}


@contextmanager
def serving(data: Path, model: dict[str, Path]) -> Iterator[Server]:
    settings: dict[str, Any] = {
        "engine": "dia",
        "device": "cpu",
        "dtype": "float32",
        "guard_retries": 0,
        **model,
    }
    data.mkdir(exist_ok=True)
    with Server(
        data, rate_limit_generate=0, rate_limit_upload=0, auto_transcribe="false", **settings
    ) as server:
        yield server


def spoken(server: Server) -> dict[str, bytes]:
    """Return the same speech with the same seed."""
    files = {}
    for name, body in SPEECH.items():
        answer = server.post("/generate", json={**body, "seed": 7, "max_tokens": 100})
        assert (answer.status_code, answer.headers["x-engine"]) == (200, "dia"), answer.text
        files[name] = answer.content
    return files


def content(server: Server) -> tuple[Any, Any, dict[str, bytes]]:
    """Return the voices with their anchors, their settings, and the recordings."""
    names = [one["prompt_id"] for one in server.get("/audio_prompts").json()["audio_prompts"]]
    recordings = {name: server.get(f"/audio_prompts/{name}/audio").content for name in names}
    voices = server.get("/voices").json()["voices"]
    for voice in voices:
        voice.get("anchor", {}).pop("created_at", None)  # the import is a new one
    return voices, server.get("/voice_mappings").json(), recordings


@pytest.mark.full
def test_imported_voices_speak_like_the_exported_ones(tmp_path: Path, model: dict[str, Path]) -> None:
    with serving(tmp_path / "first", model) as first:
        for name, seconds in (("anna", 1.0), ("ben", 1.3)):
            form = {"prompt_id": name, "transcript": f"This is {name}."}
            first.post("/audio_prompts/upload", data=form, files={"audio_file": wav_file(seconds)})
            mapping = {"voice_id": name, "audio_prompt": name, "display_name": f"Голос {name}"}
            assert first.post("/voice_mappings", json=mapping).status_code == 200
        first.post("/voice_mappings", json={"voice_id": "anna", "audio_prompt": "anna", "partner": "ben"})
        first.post("/voice_mappings", json={"voice_id": "made"})
        speech = spoken(first)
        exported = first.get("/voices/export")
        assert exported.status_code == 200, exported.text
        expected = *content(first), speech

    with serving(tmp_path / "second", model) as second:
        imported = second.post("/voices/import", files={"file": exported.content})
        assert imported.status_code == 200, imported.text
        assert imported.json()["anchors"] == ["made"]
        assert (*content(second), spoken(second)) == expected
        assert second.get("/voices/export").content == exported.content
