"""A file that tells the next server how the last one crashed.

The process that serves can't say so itself: its parent, which sees how it ended, leaves the mark.
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
        """The cause of the last server's crash; None where it is not known to have crashed."""
        try:
            return self._file.read_text()
        except OSError:
            return None

    def clear(self) -> None:
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("crash mark not cleared", error=str(error))
