"""Files that record how HTTP workers crashed; the next start reads them.

The main process writes the file, because it sees the worker's exit code. Several servers on one database may
also share the folder, so the file names the server by its id, which the worker has written to shared memory.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import msgspec
import structlog

log = structlog.get_logger()

FILES = "dia.*.crash"
"""Glob pattern of the files."""
ID_LENGTH = 36
_server_id = mmap.mmap(-1, ID_LENGTH)
"""Id of the HTTP worker's server: forked processes share this memory. Where processes are spawned, as on
Windows, the main process sees no id."""


class Crash(msgspec.Struct, frozen=True):
    server_id: str
    """Id of the server that crashed; "" if it is not known."""
    cause: str
    """Name of the signal that ended its HTTP worker, such as "SIGSEGV"."""


def set_server_id(server_id: str) -> None:
    """Tell the main process the id of the server that runs in this process."""
    _server_id[:] = server_id.encode()


class CrashMarks:
    def __init__(self, data_dir: str) -> None:
        self._folder = Path(data_dir)

    def leave(self, cause: str) -> None:
        """Record that the HTTP worker of this process has crashed."""
        server_id = _server_id[:].decode().strip("\0")
        file = self._folder / FILES.replace("*", server_id or str(uuid4()))
        try:
            file.write_bytes(msgspec.json.encode(Crash(server_id, cause)))
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

    def clear(self) -> None:
        """Remove the files."""
        for file in self._folder.glob(FILES):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                log.warning("crash mark not cleared", error=str(error))
