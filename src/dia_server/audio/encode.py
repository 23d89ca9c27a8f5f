"""Audio files from samples, in each format that the API offers."""

import io
from dataclasses import dataclass
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from dia_server.audio import wav
from dia_server.errors import AudioProcessingError

AudioFormat = Literal["wav", "mp3", "opus", "aac", "flac", "pcm"]

PCM_RATE = 24_000
"""Of headerless PCM, as OpenAI's clients assume it."""

MEDIA_TYPES: dict[AudioFormat, str] = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "pcm": f"audio/pcm;rate={PCM_RATE};channels=1",
}


@dataclass(frozen=True, slots=True)
class _Codec:
    container: str
    name: str
    sample_rate: int
    sample_format: str
    bit_rate: int | None = None


_CODECS: dict[AudioFormat, _Codec] = {
    "mp3": _Codec("mp3", "libmp3lame", 44_100, "s16p", 128_000),
    "opus": _Codec("ogg", "libopus", 48_000, "s16", 64_000),
    "aac": _Codec("adts", "aac", 44_100, "fltp", 128_000),
    "flac": _Codec("flac", "flac", 44_100, "s16"),
    "pcm": _Codec("s16le", "pcm_s16le", PCM_RATE, "s16"),
}


def encode(samples: NDArray[np.float32], sample_rate: int, audio_format: AudioFormat) -> bytes:
    """Return mono `samples` as a whole file, its headers exact; raises AudioProcessingError."""
    if audio_format == "wav":
        pcm = wav.pcm16(samples)
        return wav.header(sample_rate, len(pcm)) + pcm
    codec = _CODECS[audio_format]
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=codec.container) as container:
            stream = container.add_stream(codec.name, rate=codec.sample_rate)
            assert isinstance(stream, av.AudioStream)
            stream.layout = "mono"
            stream.format = codec.sample_format
            if codec.bit_rate is not None:
                stream.bit_rate = codec.bit_rate
            clipped = np.ascontiguousarray(samples.clip(-1.0, 1.0)[None])
            frame = av.AudioFrame.from_ndarray(clipped, format="flt", layout="mono")
            frame.sample_rate = sample_rate
            container.mux([*stream.encode(frame), *stream.encode(None)])
    except av.FFmpegError as error:
        raise AudioProcessingError(f"The audio could not be encoded as {audio_format}: {error}") from error
    return file.getvalue()
