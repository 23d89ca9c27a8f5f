"""Third-party clients of a real server. Node.js packages are installed here on first use."""

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
    """The packages of package.json, installed again when it changes; needs Node.js 20 or newer."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    installed = NODE_MODULES / ".package-lock.json"  # npm writes this file last
    with PACKAGE.open() as package:
        fcntl.flock(package, fcntl.LOCK_EX)  # test processes run in parallel
        if not installed.exists() or installed.stat().st_mtime < PACKAGE.stat().st_mtime:
            subprocess.run(["npm", "install"], cwd=HERE, check=True, timeout=500)
            installed.touch()
    return NODE_MODULES


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Server]:
    """A server with one slot, in which an utterance takes ten seconds, and one place in its queue."""
    with Server(
        tmp_path,
        command=(sys.executable, str(SLOW), "serve"),
        max_batch=1,
        max_waiting=1,
        rate_limit_generate=0,
    ) as server:
        yield server
