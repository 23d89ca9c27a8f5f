"""Ensures one server per SQLite file and outputs folder, by operating system locks on files beside them.

Two servers on one SQLite file would requeue each other's running jobs; two servers with separate databases on
one outputs folder would delete each other's results as orphans. Servers on PostgreSQL may share the outputs
folder with one another, but not with a server on SQLite. The operating system releases the locks when the
process ends, even after SIGKILL.

Hand-written because the filelock package raises in read-only folders, where no lock is needed.
"""

import errno
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from sqlalchemy.engine import make_url

LOCK_TIMEOUT_S = 3.0
"""Maximum seconds to wait for the locks, so that a server that is being replaced can exit."""
POLL_S = 0.05
"""Seconds between attempts to lock a file."""
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
"""errno values of opening a file in a folder that the server cannot write."""


class AlreadyServed(Exception):
    """Another server uses the database or the outputs folder; the message names it and the remedy."""


class ServerLock:
    """Locks of one server; `acquire` them before opening the database."""

    def __init__(self, url: str, outputs: Path) -> None:
        """`acquire` will lock the folder `outputs` and, if it is a SQLite file, the database at `url`."""
        parsed = make_url(url)
        self._shared = parsed.get_backend_name() == "postgresql"
        is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in {None, "", ":memory:"}
        self._guarded = [Path(parsed.database or ""), outputs] if is_file else [outputs]
        self._held = ExitStack()

    def acquire(self, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Acquire all locks or none; blocks up to `timeout_s` seconds, then raises AlreadyServed."""
        deadline = time.monotonic() + timeout_s
        with ExitStack() as held:
            for guarded in self._guarded:
                if (file := _open(guarded)) is None:
                    continue  # this server cannot write there, so it needs no lock
                held.enter_context(file)
                while not _try_lock(file, shared=self._shared):
                    if time.monotonic() > deadline:
                        raise AlreadyServed(
                            f"Another dia-server uses {guarded}; stop it, or give this one a folder of its "
                            f"own (DIA_DATA_DIR)"
                        )
                    time.sleep(POLL_S)
            self._held = held.pop_all()

    def release(self) -> None:
        self._held.close()


def _open(guarded: Path) -> IO[str] | None:
    """Open or create the lock file beside `guarded`; return None if their folder is read-only."""
    try:
        guarded.parent.mkdir(parents=True, exist_ok=True)
        return guarded.with_name(guarded.name + ".lock").open("a")
    except OSError as error:
        if error.errno in READ_ONLY:
            return None
        raise


def _try_lock(file: IO[str], *, shared: bool) -> bool:
    """Lock a file for this process, or together with others that call it `shared`; Windows cannot share."""
    try:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        elif not shared:
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True
