"""File that records how the worker process crashed; the next start reads it.

The main process writes the file, because it sees the worker's exit code.
"""

from pathlib import Path

import structlog

log = structlog.get_logger()


class CrashMark:
    def __init__(self, data_dir: str) -> None:
        self._file = Path(data_dir) / "dia.crash"

    def leave(self, cause: str) -> None:
        try:
            self._file.write_text(cause)
        except OSError as error:
            log.warning("crash not noted", error=str(error))

    def read(self) -> str | None:
        """Return the cause of the last crash, such as "SIGSEGV"; None if no crash is known."""
        try:
            return self._file.read_text()
        except OSError:
            return None

    def clear(self) -> None:
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("crash mark not cleared", error=str(error))
