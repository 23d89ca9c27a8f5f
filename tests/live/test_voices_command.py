"""`dia-server voices` with a running server, and on a data folder that no server uses."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import cloning_server, forks
from tests.live.server import Server, free_port

PROGRAM = (sys.executable, cloning_server.__file__)
KEY = "a-secret-key"


def run(folder: Path, port: int, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `dia-server voices`, with a fake Dia that clones, for the data in `folder`."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIA_")}
    variables = {"DIA_DATA_DIR": str(folder), "DIA_PORT": str(port)}
    variables |= {f"DIA_{name.upper()}": value for name, value in settings.items()}
    return forks.run([*PROGRAM[1:], "voices", *arguments], folder, ours | variables, timeout=120)


def done(folder: Path, port: int, *arguments: str, **settings: str) -> list[str]:
    """Return the lines that `dia-server voices` prints."""
    ran = run(folder, port, *arguments, **settings)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A data folder and a port on which its server answers, or none does."""
    if request.param == "folder":
        yield tmp_path, free_port()
        return
    with Server(tmp_path, command=(*PROGRAM, "serve"), rate_limit_upload=0, api_keys=KEY) as server:
        yield tmp_path, server.port


@pytest.mark.parametrize("place", ["folder", pytest.param("server", marks=pytest.mark.full)], indirect=True)
def test_a_voice_is_made_exported_and_imported(place: tuple[Path, int]) -> None:
    folder, port = place
    archive = folder / "voices.zip"
    key = {"api_keys": KEY}

    made = done(folder, port, "make", "aria", "--count", "2", "--seed", "5", **key)
    after = done(folder, port, "list", **key)
    done(folder, port, "export", str(archive), "aria", "--licence", "CC0", **key)
    done(folder, port, "make", "aria", "--count", "1", "--seed", "9", **key)
    imported = done(folder, port, "import", str(archive), "--replace", **key)

    assert after[0].split() == ["voice", "name", "style", "sound"]
    assert after[2].split() == ["atlas", "Atlas", "calm", "none", "yet"]
    assert [line.split()[1] for line in made[1:3]] == ["5", "6"]
    assert [line.split()[-1] for line in made[1:3]] == ["good", "good"]
    assert made[3] == f"Kept {made[1].split()[0]}."
    assert "anchor of 9.3 s, 135 Hz" in after[1]
    assert imported == ["Imported aria."]
    assert len(os.listdir(folder / "anchors")) == 1
    assert done(folder, port, "list", **key) == after


@pytest.mark.parametrize("place", ["server", pytest.param("folder", marks=pytest.mark.full)], indirect=True)
def test_failures_are_told_in_a_line(place: tuple[Path, int]) -> None:
    folder, port = place
    (folder / "no.zip").write_bytes(b"no archive")

    unknown = run(folder, port, "make", "nobody", api_keys=KEY)
    damaged = run(folder, port, "import", str(folder / "no.zip"), api_keys=KEY)
    nowhere = run(folder, port, "export", str(folder / "none" / "voices.zip"), api_keys=KEY)

    for ran in (unknown, damaged, nowhere):
        assert ran.returncode == 1
        assert ran.stderr.splitlines()[-1].startswith("Error: "), ran.stderr
        assert "Traceback" not in ran.stderr
    assert "Error: Voice 'nobody' does not exist" in unknown.stderr


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path, command=(*PROGRAM, "serve")):
        ran = run(tmp_path, free_port(), "list")

    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: ")
