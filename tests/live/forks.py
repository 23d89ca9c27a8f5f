"""Programs of this environment, forked from a process that has imported the server already.

They start in a fifth of the CPU time that a new interpreter takes to import the same modules. Run as a
program, this module is the process that forks: it reads requests, a line each, until its input ends.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

# macOS's libraries do not survive a fork without exec, and coverage would not notice it
AVAILABLE = sys.platform == "linux" and "COVERAGE_PROCESS_CONFIG" not in os.environ
PRELOADED = (
    "dia_server.app",
    "dia_server.cli",
    "dia_server.db.preparation",
    "dia_server.serving",
    # what these import as they start
    "aiosqlite",
    "anyio._backends._asyncio",
    "litestar._kwargs",
    "litestar.middleware.response_cache",
    "litestar.plugins.attrs",
    "litestar.plugins.pydantic",
    "multiprocessing.forkserver",
    "multiprocessing.popen_fork",
    "multiprocessing.popen_forkserver",
    "psycopg",
    "pydantic.v1",
    "sqlalchemy.dialects.postgresql.psycopg",
)
"""Modules without threads, which a fork would lose."""


class Fork:
    """A forked program, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _parent().ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            time.sleep(0.01)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def start(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], output: Path, errors: Path | None = None
) -> Fork:
    """Run Python with `arguments`, either `-m` and a module or a file, in a session of its own.

    What it prints is added to the file `output`, and its errors to `errors`, if that is given.
    """
    paths = {"cwd": str(cwd), "output": str(output), "errors": str(errors or output)}
    return Fork(_parent().ask({"arguments": [*arguments], "env": {**env}, **paths}))


def run(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run Python as `start` does, or as a new interpreter; return once it has ended."""
    if not AVAILABLE:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = start(arguments, cwd, env, output, errors)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(arguments, status, output.read_text(), errors.read_text())


class _Parent:
    def __init__(self) -> None:
        self._lock = Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={name: value for name, value in os.environ.items() if not name.startswith("DIA_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        atexit.register(self._process.communicate)  # closes its input

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@cache
def _parent() -> _Parent:
    return _Parent()


def _answer_until_forked() -> dict[str, Any]:
    """Answer requests; return, in a forked process only, the program that it shall run."""
    while line := sys.stdin.readline():
        request: dict[str, Any] = json.loads(line)
        if (pid := request.get("poll")) is not None:
            ended, status = os.waitpid(pid, os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if ended else "null", flush=True)
            continue
        paths = request.pop("output"), request.pop("errors")
        files = [os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) for path in paths]
        if is_child := os.fork() == 0:
            os.setsid()
            print(os.getpid(), flush=True)
            for standard, file in enumerate(files, 1):
                os.dup2(file, standard)
        for file in files:
            os.close(file)
        if is_child:
            return request
    os._exit(0)


def _become(arguments: list[str], cwd: str, env: dict[str, str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], cwd
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection would copy the pages that forks share
    _become(**_answer_until_forked())
