"""Checks the audio formats, by encoding silence in each of them, and espeak-ng, by starting it."""

from collections.abc import Iterator

from dia_server.doctor.finding import Finding, ok, wrong
from dia_server.settings import Settings
from dia_server.units import SAMPLE_RATE


def check_formats(conf: Settings) -> Iterator[Finding]:
    import numpy as np

    from dia_server.audio.encode import MEDIA_TYPES, encode
    from dia_server.audio.tempo import change_tempo
    from dia_server.errors import AudioProcessingError

    samples = change_tempo(np.zeros(4410, np.float32), SAMPLE_RATE, 1.5)
    broken = []
    for audio_format in MEDIA_TYPES:
        try:
            encode(samples, SAMPLE_RATE, audio_format)
        except (AudioProcessingError, OSError, ValueError) as error:
            broken.append(f"{audio_format} ({error})")
    if broken:
        yield wrong("Formats", f"cannot be encoded: {', '.join(broken)}. Install PyAV (av) from its wheel.")
    else:
        yield ok("Formats", ", ".join(MEDIA_TYPES))


def check_espeak(conf: Settings) -> Iterator[Finding]:
    from dia_server.engine.preview import espeak
    from dia_server.errors import ServerError

    worker = espeak()
    try:
        worker.wait()
    except ServerError as error:
        yield wrong("espeak-ng", f"the preview engine cannot speak: {error}. Reinstall espeakng-loader.")
    else:
        yield ok("espeak-ng", "speaks")
    finally:
        worker.close()
