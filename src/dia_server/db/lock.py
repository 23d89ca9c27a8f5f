"""One server per SQLite file and per folder of results: locks of the operating system on files beside them.

Two servers on a database would each take the other's running jobs for ones that a crash had left behind; two
on a folder, with a database each, the other's results for ones that have lost their jobs. A lock ends with
the process, however that ends.
"""

import errno
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from sqlalchemy.engine import make_url

LOCK_TIMEOUT_S = 3.0
"""How long a predecessor that was just ended may take to be gone."""
POLL_S = 0.05
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


class AlreadyServed(Exception):
    """Another server has the database or the folder; the message says which and what to do."""


class ServerLock:
    """`acquire`, `release`."""

    def __init__(self, url: str, outputs: Path) -> None:
        """Of the database at `url`, where it is a SQLite file, and of the folder `outputs`."""
        parsed = make_url(url)
        is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in {None, "", ":memory:"}
        self._guarded = [Path(parsed.database or ""), outputs] if is_file else [outputs]
        self._held = ExitStack()

    def acquire(self, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Take the locks; blocks for up to `timeout_s` seconds, then raises AlreadyServed."""
        deadline = time.monotonic() + timeout_s
        with ExitStack() as held:
            for guarded in self._guarded:
                if (file := _open(guarded)) is None:
                    continue  # where nothing can be written, no other server's data can be harmed
                held.enter_context(file)
                while not _try_lock(file):
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
    """The file beside `guarded` that is locked; None where it can't be made, as nothing can there."""
    try:
        guarded.parent.mkdir(parents=True, exist_ok=True)
        return guarded.with_name(guarded.name + ".lock").open("a")
    except OSError as error:
        if error.errno in READ_ONLY:
            return None
        raise


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
