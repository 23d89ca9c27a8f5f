"""A real server in a process of its own, on a free port."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil  # type: ignore[import-untyped]

from tests.live import forks
from tests.live.address import PATIENCE_S, Address
from tests.waiting import wait_until


class Server(Address):
    """A `dia-server` with settings as keyword arguments: `with Server(folder, max_batch=2) as server`."""

    def __init__(
        self,
        data_dir: Path,
        *,
        command: tuple[str, ...] = (sys.executable, "-m", "dia_server", "serve"),
        patience_s: float = PATIENCE_S,
        fork: bool = True,
        **settings: Any,
    ) -> None:
        """If `fork` is set, a `command` of this environment's Python starts as `tests.live.forks` does it."""
        self.data_dir = data_dir
        self.log_file = data_dir / "server.log"
        self._command = command
        self._patience_s = patience_s
        self._forks = fork and forks.AVAILABLE and command[0] == sys.executable
        self.port = free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self.variables = {
            "DIA_DATA_DIR": str(data_dir),
            "DIA_PORT": str(self.port),
            "DIA_ENGINE": "preview",
        } | {f"DIA_{name.upper()}": str(value) for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | forks.Fork | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def launch(self) -> None:
        """Start the server; return at once."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("DIA_")}
        if self._forks:
            self.process = forks.start(self._command[1:], self.data_dir, ours | self.variables, self.log_file)
            return
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.data_dir,
                env=ours | self.variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self, *, wait_until_loaded: bool = True) -> None:
        """Start the server; return once it answers and, unless told otherwise, its model is loaded."""
        self.launch()
        assert self.process is not None
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                health = self.get("/health").json()
                if health["model_loaded"] or not wait_until_loaded:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"The server did not start:\n{self.log}")

    def stop(self) -> int:
        """Send SIGINT, as Ctrl-C does; return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=60)  # the shutdown timeout is 30 s by default

    def kill(self) -> None:
        """Send SIGKILL to the server and its worker processes; return once all have ended."""
        assert self.process is not None
        group = self.process.pid
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not _runs(group))  # until then its processes hold the port and locks

    @property
    def log(self) -> str:
        return self.log_file.read_text()


def _runs(group: int) -> bool:
    """Return whether a process of the process group `group` has not ended.

    A process is called a zombie once its first thread has ended; others may still hold its files.
    """
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            ended = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() == 1
            if os.getpgid(process.pid) == group and not ended:
                return True
    return False


def free_port() -> int:
    """Return a port below those that systems give to clients, which could take it while a server restarts."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
