"""`dia-server doctor`: what a machine lacks to run the server as it is set, in words.

Nothing is changed, downloaded or loaded: neither weights nor, where there is no GPU's driver, torch. Each
check is a function from the settings to findings; one that fails unexpectedly is a finding itself.
"""

from collections.abc import Callable, Iterable, Iterator

from dia_server.doctor import audio, data, machine, network, weights, whisper
from dia_server.doctor.finding import Finding, wrong
from dia_server.settings import Settings

Check = Callable[[Settings], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    machine.check_python,
    machine.check_gpu,
    weights.check_weights,
    audio.check_formats,
    audio.check_espeak,
    whisper.check_whisper,
    data.check_folder,
    data.check_database,
    network.check_port,
    network.check_keys,
    network.check_sites,
)


def examine(conf: Settings, checks: Iterable[Check] = CHECKS) -> Iterator[Finding]:
    """Run all checks; findings come as they are made."""
    for check in checks:
        try:
            yield from check(conf)
        except Exception as error:  # noqa: BLE001 - the other checks may tell why
            subject = check.__name__.removeprefix("check_")
            yield wrong(subject, f"could not be examined: {type(error).__name__}: {error}")
