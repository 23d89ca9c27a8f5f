"""Runs the Dockerfile's steps without a container engine.

Only with DOCKERFILE_STEPS=1, because it takes minutes and downloads gigabytes.

The stage `build` runs step by step in an empty folder. The later stages' changes of the system (`useradd`,
`apt-get`) are left out; their variables, entry point and health check are used unchanged.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.server import Server

ROOT = Path(__file__).parents[2]
STEPS: list[tuple[str, str]] = re.findall(
    r"^([A-Z]+) (.*)$", (ROOT / "Dockerfile").read_text().replace("\\\n", ""), re.MULTILINE
)
FIRST_STAGE, LATER_STAGES = STEPS[: (end := [name for name, _ in STEPS].index("FROM", 1))], STEPS[end:]


def later(name: str) -> str:
    """Return the arguments of the last instruction `name` in the later stages."""
    return [text for step, text in LATER_STAGES if step == name][-1]


class Image:
    """A folder used as the root of the image's file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder
        python = f"{sys.base_prefix}/bin"  # this Python; the image has the oldest supported version
        self.variables = {"PATH": f"{python}:{os.environ['PATH']}", "HOME": str(folder)}

    def inside(self, text: str) -> str:
        """Return `text` with the absolute paths of the Dockerfile moved into the folder."""
        return re.sub(r"(?<![\w.])/(opt|build|data)\b", rf"{self.folder}/\1", text)

    def follow(self, name: str, text: str) -> None:
        match name:
            case "WORKDIR":
                self.work = Path(self.inside(text))
                self.work.mkdir(parents=True)
            case "COPY":
                *sources, target = text.split()
                for source in sources:
                    place = self.work / target / ("" if (ROOT / source).is_dir() else source)
                    copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                    copy(ROOT / source, place)
            case "RUN":
                subprocess.run(self.inside(text), shell=True, cwd=self.work, env=self.variables, check=True)
            case "ENV":
                for variable, value in re.findall(r'(\w+)="?([^"\s]+)"?', self.inside(text)):
                    self.variables[variable] = value.replace("$PATH", self.variables["PATH"])


@pytest.mark.skipif(os.environ.get("DOCKERFILE_STEPS") != "1", reason="needs DOCKERFILE_STEPS=1")
def test_the_steps_of_the_image_make_a_server_that_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(tmp_path)
    for name, text in FIRST_STAGE:
        image.follow(name, text)
    image.follow("ENV", later("ENV"))
    data = Path(image.variables["DIA_DATA_DIR"])
    data.mkdir()
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (program,) = json.loads(later("ENTRYPOINT"))
    command = shutil.which(program, path=image.variables["PATH"])
    assert command is not None
    assert Path(command).is_relative_to(tmp_path)

    report = subprocess.run(
        [command, "doctor"], cwd=data, env=image.variables, capture_output=True, text=True, check=False
    )
    print(report.stdout)
    assert report.returncode == 0

    with Server(data, command=(command, *json.loads(later("CMD")))) as server:
        assert server.post("/generate", json={"text": "Hello."}).content[:4] == b"RIFF"
        check = later("HEALTHCHECK")
        probe = json.loads(check[check.index("[") :])
        subprocess.run(probe, env=image.variables | {"DIA_PORT": str(server.port)}, check=True)
