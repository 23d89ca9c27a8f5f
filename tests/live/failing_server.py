"""`dia-server` with a tone model at twice real time; a text with "fail" fails after a second of audio.

A text with "on and on" takes two minutes, so that no test waits for its end. A text with "hold NAME" makes
no audio until the file NAME is in the data folder, and then one second of it.
"""

import re
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

HOLD = re.compile(r"[Hh]old (\w+)")


def script(utterance: Utterance) -> list[Part]:
    if "fail" in utterance.text:
        return [*speech(1), ServerError("The model has failed")]
    if "on and on" in utterance.text:
        return speech(240)
    if HOLD.search(utterance.text):
        return speech(1)
    return speech(10 if "Short" in utterance.text else 20)


def engine(conf: Settings, gpus: Sequence[Device], config: Callable[[], Config]) -> Engine:
    def is_held(utterance: Utterance) -> bool:
        held = HOLD.search(utterance.text)
        return held is not None and not (Path(conf.data_dir) / held[1]).exists()

    model = ScriptedModel(script, conf.max_batch, step_s=0.05, is_held=is_held)
    return Engine("preview", lambda _: model, max_waiting=conf.max_waiting)


if __name__ == "__main__":
    composition.choose_engine = engine  # type: ignore[attr-defined]
    cli.main()
