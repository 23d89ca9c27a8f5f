"""Checkpoints that are not on this machine, and the errors if they cannot be downloaded."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars

from dia_server.engine.dia import hub
from dia_server.engine.dia.hub import locate, progress_bar
from dia_server.errors import ModelNotLoaded


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a hub at a port where no program listens."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def refusal(name: str) -> str:
    with pytest.raises(ModelNotLoaded) as refused:
        locate(name, "DIA_MODEL", lambda _: None)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_folder_is_its_own_place(tmp_path: Path) -> None:
    assert locate(str(tmp_path), "DIA_MODEL", lambda _: None) == tmp_path


def test_a_hub_that_cannot_be_reached_is_named_with_what_to_do() -> None:
    assert refusal("some/model") == (
        "The checkpoint 'some/model' is not on this machine, and http://127.0.0.1:9 cannot be reached "
        "([Errno 111] Connection refused). Connect it to the network, or set DIA_MODEL to a folder that "
        "holds it; DIA_ENGINE=preview speaks without it."
    )


def test_a_download_that_is_forbidden_names_what_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert "HF_HUB_OFFLINE forbids to download it. Unset that" in refusal("some/model")


def test_a_missing_folder_is_not_taken_for_a_repository() -> None:
    assert refusal("/models/dia") == (
        "'/models/dia' is neither a folder nor the name of a repository (owner/name): see DIA_MODEL."
    )


def test_another_failure_of_the_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError("No space left on device\nand more")

    monkeypatch.setattr(hub, "snapshot_download", full)

    assert refusal("some/model") == (
        "The checkpoint 'some/model' could not be downloaded: No space left on device"
    )


def test_the_download_reports_its_share() -> None:
    shares: list[float] = []
    with disable_progress_bars():  # as the codec does
        bar = progress_bar(shares.append)(total=0, unit="B", unit_scale=True, disable=True)
    bar.total = 8
    bar.update(2)
    bar.update(6)
    bar.close()
    assert shares == [0.25, 1.0]
