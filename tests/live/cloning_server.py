"""`dia-server` with a fake Dia that clones, for tests of anchors; it needs no torch.

Granian's worker is forked from this process and finds the application as it is changed here.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dia_server import cli, composition
from dia_server.engine.devices import Device
from dia_server.engine.engine import Engine
from dia_server.services.config import Config
from dia_server.settings import Settings
from tests.cloning import CloningModel
from tests.tones import loader

STEP_S = 0.05
"""Seconds that a step takes; an utterance takes 8 of them."""


def pitch(seed: int) -> float:
    """Return the frequency in Hz of the voice that a seed gives."""
    return 100.0 + 37 * seed % 150


def cloning_engine(conf: Settings, gpus: Sequence[Device], config: Callable[[], Config]) -> Engine:
    model = CloningModel(conf.max_batch, before_step=partial(time.sleep, STEP_S), pitch=pitch)
    return Engine("dia", loader(model), max_waiting=conf.max_waiting)


if __name__ == "__main__":
    composition.choose_engine = cloning_engine  # type: ignore[attr-defined]
    cli.main()
