"""One server per SQLite file: a lock of the operating system on a file beside it.

Two servers would each take the other's running jobs for ones that a crash had left behind. The lock ends
with the process, however that ends.
"""

import sys
import time
from pathlib import Path
from typing import IO

from sqlalchemy.engine import make_url

PATIENCE_S = 3.0
"""How long a predecessor that was just ended may take to be gone."""
POLL_S = 0.05


class AlreadyServed(Exception):
    """Another server has the database; the message says which and what to do."""


class ServerLock:
    """`acquire`, `release`; without effect for a database that is not a SQLite file."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in {None, "", ":memory:"}
        self._database = Path(parsed.database or "") if is_file else None
        self._file: IO[str] | None = None

    def acquire(self, patience_s: float = PATIENCE_S) -> None:
        """Take the lock; blocks for up to `patience_s` seconds, then raises AlreadyServed."""
        if self._database is None:
            return
        path = self._database.with_name(self._database.name + ".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        deadline = time.monotonic() + patience_s
        while not _try_lock(file):
            if time.monotonic() > deadline:
                file.close()
                raise AlreadyServed(
                    f"Another dia-server uses {self._database}; stop it, or give this one a folder of its "
                    f"own (DIA_DATA_DIR)"
                )
            time.sleep(POLL_S)
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _try_lock(file: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
