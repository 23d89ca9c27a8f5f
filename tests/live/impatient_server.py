"""`slow_server.py` with a short timeout for clients that no longer receive."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dia_server import cli, composition, serving
from tests.live.slow_server import slow_engine

GONE_AFTER_S = 4

if __name__ == "__main__":
    serving.GONE_AFTER_S = GONE_AFTER_S
    composition.choose_engine = slow_engine  # type: ignore[attr-defined]
    cli.main()
