"""`dia-server` with tones for speech at twice real time, where a text with "fail" in it fails on its way.

A text with "on and on" in it takes two minutes: no test waits for its end.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dia_server import cli, composition
from dia_server.engine.devices import Device
from dia_server.engine.engine import Engine
from dia_server.engine.types import Utterance
from dia_server.errors import ServerError
from dia_server.services.config import Config
from dia_server.settings import Settings
from tests.scripted import Part, ScriptedModel, speech


def script(utterance: Utterance) -> list[Part]:
    if "fail" in utterance.text:
        return [*speech(1), ServerError("The model has failed")]
    if "on and on" in utterance.text:
        return speech(240)
    return speech(10 if "Short" in utterance.text else 20)


def engine(conf: Settings, gpus: Sequence[Device], config: Callable[[], Config]) -> Engine:
    model = ScriptedModel(script, conf.max_batch, step_s=0.05)
    return Engine("preview", lambda _: model, max_waiting=conf.max_waiting)


if __name__ == "__main__":
    composition.choose_engine = engine  # type: ignore[attr-defined]
    cli.main()
