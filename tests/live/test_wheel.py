"""The built wheel, installed in an environment without the checkout."""

import subprocess
import sys
import venv
from pathlib import Path

from tests.live.server import Server

ROOT = Path(__file__).parents[2]


def test_a_server_starts_from_the_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    # dependencies are lent by this environment; a plain line in a .pth file brings no editable checkout
    lent = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "lent.pth").write_text(lent)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(packages), str(wheel)],
        check=True,
        capture_output=True,
    )
    python = environment / "bin" / "python"
    (folder := tmp_path / "empty").mkdir()

    with Server(folder, command=(str(python), "-m", "dia_server", "serve")) as server:
        assert server.post("/generate", json={"text": "Hi"}).content[:4] == b"RIFF"
        for path in ("/", "/static/studio/js/main.js", "/docs", "/redoc", "/static/docs/swagger-ui.css"):
            assert server.get(f"{path}").status_code == 200
    where = [str(python), "-c", "import dia_server; print(dia_server.__file__)"]
    assert (
        str(packages) in subprocess.run(where, capture_output=True, text=True, check=True, cwd=folder).stdout
    )
