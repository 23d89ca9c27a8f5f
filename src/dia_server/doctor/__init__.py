"""`dia-server doctor`: checks whether this machine can run the server with its settings.

The checks change nothing, download nothing and load no weights; torch is imported only if a GPU driver is
installed. Each check takes the settings and yields findings; an exception becomes a finding of grade `wrong`.
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
    data.check_storage,
    data.check_database,
    network.check_port,
    network.check_keys,
    network.check_sites,
)


def examine(conf: Settings, checks: Iterable[Check] = CHECKS) -> Iterator[Finding]:
    """Run `checks` in order; yield each finding as soon as it is known."""
    for check in checks:
        try:
            yield from check(conf)
        except Exception as error:  # noqa: BLE001 - the other checks may tell why
            subject = check.__name__.removeprefix("check_")
            yield wrong(subject, f"check failed: {type(error).__name__}: {error}")
