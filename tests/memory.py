"""Resident memory of processes, in bytes."""

from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

STATM = Path("/proc/self/statm")
PAGE = 4096

linux_only = pytest.mark.skipif(not STATM.exists(), reason="reads /proc")


def resident() -> int:
    """Return this process's resident bytes now; getrusage would give the maximum so far."""
    return int(STATM.read_text().split()[1]) * PAGE


def resident_of(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; shared pages count once per process."""
    server = psutil.Process(pid)
    count: int = sum(process.memory_info().rss for process in [server, *server.children(recursive=True)])
    return count
