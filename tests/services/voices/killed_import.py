"""Imports an archive, and kills itself at a point of the import: python -m ... DATA ARCHIVE POINT."""

import asyncio
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

from dia_server.services import durable_files
from dia_server.services.durable_files import RecoverableChange
from tests.libraries import Home

POINTS = {
    "staged": (RecoverableChange, "apply", False),
    "backed up": (durable_files, "_write", False),
    "applied in part": (RecoverableChange, "_replace", True),
    "applied": (RecoverableChange, "apply", True),
    "committed": (RecoverableChange, "cleanup", False),
    "journal removed": (durable_files, "remove_journal", True),
}
"""Where to kill: owner and name of a function, and whether to kill after its first call or before it."""


def kill_at(point: str) -> None:
    owner, name, after = POINTS[point]
    original = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        if not after and _is_due(point, arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments)
        if after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call)


def _is_due(point: str, arguments: tuple[Any, ...]) -> bool:
    """Return whether a call is the one to die in: of `_write`, the one that writes the journal."""
    return point != "backed up" or b'"backups"' in arguments[1]


async def main(data: str, archive: bytes, point: str) -> None:
    home = Home(Path(data))
    await home.open()
    kill_at(point)
    await home.library.add(io.BytesIO(archive), overwrite=True)


if __name__ == "__main__":
    data, archive, point = sys.argv[1:]
    asyncio.run(main(data, Path(archive).read_bytes(), point))
