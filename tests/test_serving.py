from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from dia_server import serving
from dia_server.settings import Settings


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "0.0.0.0", "api_keys": ("secret",)}, False),
    ],
    ids=str,
)
def test_an_open_server_without_keys_warns_when_it_starts(
    settings: Settings, changes: dict[str, object], warned: bool
) -> None:
    with capture_logs() as lines:
        serving.warn_if_exposed(msgspec.structs.replace(settings, **changes))

    assert [line["log_level"] for line in lines] == ["warning"] * warned
    assert all("DIA_API_KEYS" in line["event"] for line in lines)


def test_our_image_does_not(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "IMAGE_MARK", tmp_path)

    with capture_logs() as lines:
        serving.warn_if_exposed(msgspec.structs.replace(settings, host="0.0.0.0"))

    assert lines == []
