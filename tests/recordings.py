"""Voice-like recordings for tests, in any container."""

import io

import av
import numpy as np
from numpy.typing import NDArray

from dia_server.audio import wav

RATE = 44_100


def sound(
    seconds: float, loudness: float = 0.5, rate: int = RATE, pitch: float = 150.0
) -> NDArray[np.float32]:
    """Return a hum whose loudness rises and falls four times a second, as syllables do."""
    time = np.arange(round(seconds * rate)) / rate
    hum = np.sin(2 * np.pi * pitch * time) + 0.5 * np.sin(2 * np.pi * 3 * pitch * time)
    shape = np.sin(2 * np.pi * 2 * time) ** 2
    samples: NDArray[np.float32] = (loudness * hum * shape / 1.5).astype(np.float32)
    return samples


def wav_file(
    seconds: float,
    loudness: float = 0.5,
    rate: int = RATE,
    claimed_rate: int | None = None,
    pitch: float = 150.0,
) -> bytes:
    pcm = wav.pcm16(sound(seconds, loudness, rate, pitch))
    return wav.header(claimed_rate or rate, len(pcm)) + pcm


def container(samples: NDArray[np.float32], format_name: str, codec: str) -> bytes:
    """Encode mono `samples` at RATE in one of FFmpeg's containers and codecs."""
    file = io.BytesIO()
    with av.open(file, "w", format=format_name) as out:
        stream = out.add_stream(codec, rate=48_000 if codec == "libopus" else RATE)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
        frame.sample_rate = RATE
        out.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()
