import gc
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from structlog.testing import capture_logs

from dia_server import serving
from dia_server.app import create_lasting_app
from dia_server.settings import Settings

UNLIMITED = -1
WANTED = serving.MAX_CONNECTIONS + serving.SPARE_FILES


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


def test_our_container_image_does_not_warn(settings: Settings, tmp_path: Path) -> None:
    with capture_logs() as lines:
        serving.warn_if_exposed(msgspec.structs.replace(settings, host="0.0.0.0"), image_mark=tmp_path)

    assert lines == []


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "connections"),
    [
        (1024, 524_288, WANTED, 8192),
        (256, UNLIMITED, WANTED, 8192),
        (65_536, 65_536, None, 8192),
        (UNLIMITED, UNLIMITED, None, 8192),
        (1024, 4096, 4096, 2048),
        (1024, 1024, 1024, 512),
    ],
)
def test_the_limit_of_open_files_bounds_connections(
    soft: int, hard: int, raised: int | None, connections: int
) -> None:
    set_to: list[tuple[int, int]] = []
    system = SimpleNamespace(
        RLIMIT_NOFILE=7,
        RLIM_INFINITY=UNLIMITED,
        getrlimit=lambda _: (soft, hard),
        setrlimit=lambda _, limits: set_to.append(limits),
    )

    assert serving.raise_connection_limit(system) == connections
    assert set_to == ([] if raised is None else [(raised, hard)])


@pytest.mark.skipif(not hasattr(os, "waitpid"), reason="only POSIX has zombies")
def test_a_process_that_another_thread_waits_for_is_not_running() -> None:
    process = multiprocessing.get_context("spawn").Process(target=sum, args=((),))
    process.start()
    assert serving.is_running(process)
    os.waitpid(process.pid or 0, 0)  # as Granian's thread does, in the moment before it stores the result

    assert process.is_alive()
    assert not serving.is_running(process)


def test_a_server_process_leaves_what_lasts_out_of_its_collections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DIA_ENGINE", "preview")
    before = gc.get_freeze_count()
    gc.disable()

    create_lasting_app()

    assert gc.isenabled()
    assert gc.get_freeze_count() > before
