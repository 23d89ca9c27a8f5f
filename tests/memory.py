"""What this process holds in memory."""

from pathlib import Path

import pytest

STATM = Path("/proc/self/statm")
PAGE = 4096

linux_only = pytest.mark.skipif(not STATM.exists(), reason="reads /proc")


def resident() -> int:
    """Bytes in memory now; getrusage would tell the most there ever were."""
    return int(STATM.read_text().split()[1]) * PAGE
