from pathlib import Path

import pytest
from faster_whisper import utils
from huggingface_hub import constants

from dia_server.services.voices.whisper_models import FILES, REPOSITORIES, locate


def test_the_models_are_those_of_faster_whisper() -> None:
    assert REPOSITORIES == utils._MODELS


def test_a_model_in_the_cache_is_found_once_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--Systran--faster-whisper-base"
    snapshot = cached / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    for name in FILES:
        missing = locate("base")
        assert (missing.folder, missing.can_download) == (None, True)
        (snapshot / name).touch()

    assert locate("base").folder == snapshot
    assert locate("base.en").folder is None


def test_nothing_is_downloaded_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    found = locate("base")

    assert (found.folder, found.can_download) == (None, False)
    assert "HF_HUB_OFFLINE" in str(found.problem)


def test_a_folder_needs_the_files_of_a_model(whisper_folder: Path, tmp_path: Path) -> None:
    assert locate(str(whisper_folder)).folder == whisper_folder
    assert locate(str(tmp_path)).problem == "the folder lacks config.json, model.bin"
