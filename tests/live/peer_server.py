"""`dia-server` with short timing for several servers on one PostgreSQL, and a tone model at twice real time.

With DIA_CLUSTER, the engines of the cluster speak.

A text with "hold NAME" makes no audio until the file NAME is beside the data folder. The model is not loaded
while the file LOADING is there. With the variable USUAL_TIMING, the timing is that of `dia-server`.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dia_server import app, cli, composition
from dia_server.db.listener import Listener
from dia_server.engine.any_engine import AnyEngine
from dia_server.engine.devices import Device
from dia_server.engine.engine import Engine
from dia_server.engine.types import Utterance
from dia_server.engines import choose_engine
from dia_server.services.config import Config
from dia_server.services.peers import Reloading
from dia_server.settings import Settings
from dia_server.timing import Timing
from tests.scripted import Part, ScriptedModel, speech

TIMING = Timing(job_retry_s=0.1, job_progress_interval_s=0.5, heartbeat_s=0.5, lease_s=4.0)
RELOAD_S = 3600.0
"""Seconds between loads of everything: longer than any test, so that notifications are needed."""
POLL_S = 0.2
"""Seconds between attempts to lead."""
USUAL_TIMING = "USUAL_TIMING"
LOADING = "loading"
HOLD = re.compile(r"[Hh]old (\w+)")


def tone(text: str) -> list[Part]:
    """Return the audio of a text: a tenth of a second, and one more for each 10 characters."""
    return speech(0.1 * (1 + len(text) // 10))


def engine(conf: Settings, gpus: Sequence[Device], config: Callable[[], Config]) -> AnyEngine:
    if conf.cluster:
        return choose_engine(conf, gpus, config)
    folder = Path(conf.data_dir).parent

    def is_held(utterance: Utterance) -> bool:
        held = HOLD.search(utterance.text)
        return held is not None and not (folder / held[1]).exists()

    def load(_: object) -> ScriptedModel:
        while (folder / LOADING).exists():
            time.sleep(0.02)
        return ScriptedModel(lambda one: tone(one.text), conf.max_batch, step_s=0.05, is_held=is_held)

    return Engine("preview", load, max_waiting=conf.max_waiting)


if __name__ == "__main__":
    composition.choose_engine = engine  # type: ignore[attr-defined]
    if USUAL_TIMING not in os.environ:
        composition.Reloading = partial(Reloading, interval_s=RELOAD_S)  # type: ignore[assignment,attr-defined]
        composition.Listener = partial(Listener, poll_s=POLL_S)  # type: ignore[assignment,attr-defined]
        app.create_app = partial(app.create_app, timing=TIMING)
    cli.main()
