"""Files that record how HTTP workers crashed; the next start reads them.

The main process writes the file, because it sees the worker's exit code. Several servers on one database may
also share the folder, so the file says which process crashed.
"""

import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger()

FILES = "dia.*.crash"
"""Glob pattern of the files."""


class Crash(msgspec.Struct, frozen=True):
    host: str
    """Host name of the machine or container."""
    pid: int
    """Process id of the HTTP worker."""
    cause: str
    """Name of the signal that ended it, such as "SIGSEGV"."""


class CrashMarks:
    def __init__(self, data_dir: str) -> None:
        self._folder = Path(data_dir)

    def leave(self, pid: int, cause: str) -> None:
        """Record that the HTTP worker with this process id crashed."""
        crash = Crash(socket.gethostname(), pid, cause)
        try:
            self._file(crash).write_bytes(msgspec.json.encode(crash))
        except OSError as error:
            log.warning("crash not noted", error=str(error))

    def read(self) -> Sequence[Crash]:
        """Return the crashes that no start has handled yet; skip and log files that cannot be read."""
        crashes = []
        for file in sorted(self._folder.glob(FILES)):
            try:
                crashes.append(msgspec.json.decode(file.read_bytes(), type=Crash))
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("crash mark ignored", file=file.name, error=str(error))
        return crashes

    def clear(self, crashes: Sequence[Crash]) -> None:
        """Remove the files of these crashes."""
        for crash in crashes:
            try:
                self._file(crash).unlink(missing_ok=True)
            except OSError as error:
                log.warning("crash mark not cleared", error=str(error))

    def _file(self, crash: Crash) -> Path:
        return self._folder / FILES.replace("*", f"{crash.host}-{crash.pid}")
