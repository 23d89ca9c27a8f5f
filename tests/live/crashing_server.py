"""`dia-server` with a tone model; a text with "crash" raises SIGSEGV, as a fault in native code would."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dia_server import cli, composition
from dia_server.engine.devices import Device
from dia_server.engine.engine import Engine
from dia_server.services.config import Config
from dia_server.settings import Settings
from tests.tones import FatalModel, loader


def fault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def engine(conf: Settings, gpus: Sequence[Device], config: Callable[[], Config]) -> Engine:
    return Engine("preview", loader(FatalModel(fault)), max_waiting=conf.max_waiting)


if __name__ == "__main__":
    composition.choose_engine = engine  # type: ignore[attr-defined]
    cli.main()
