"""Programs that others wrote, before a real server. Those of Node.js are installed here on first use."""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.server import Server

HERE = Path(__file__).parent
NODE_MODULES = HERE / "node_modules"
PACKAGE = HERE / "package.json"
SLOW = HERE.parent / "live" / "failing_server.py"


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """What package.json names, installed anew when it changes; needs Node.js 20 or newer."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    installed = NODE_MODULES / ".package-lock.json"  # npm writes it last
    with PACKAGE.open() as package:
        fcntl.flock(package, fcntl.LOCK_EX)  # tests of another process may want them too
        if not installed.exists() or installed.stat().st_mtime < PACKAGE.stat().st_mtime:
            subprocess.run(["npm", "install"], cwd=HERE, check=True, timeout=500)
            installed.touch()
    return NODE_MODULES


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Server]:
    """A server that makes one utterance at a time, which takes ten seconds, and lets one wait."""
    with Server(
        tmp_path,
        command=(sys.executable, str(SLOW), "serve"),
        max_batch=1,
        max_waiting=1,
        rate_limit_generate=0,
    ) as server:
        yield server
