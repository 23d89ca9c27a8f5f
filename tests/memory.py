"""What this process holds in memory."""

from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

STATM = Path("/proc/self/statm")
PAGE = 4096

linux_only = pytest.mark.skipif(not STATM.exists(), reason="reads /proc")


def resident() -> int:
    """Bytes in memory now; getrusage would tell the most there ever were."""
    return int(STATM.read_text().split()[1]) * PAGE


def resident_of(pid: int) -> int:
    """Bytes in memory of a process and all that descend from it; pages that they share count for each."""
    server = psutil.Process(pid)
    count: int = sum(process.memory_info().rss for process in [server, *server.children(recursive=True)])
    return count
