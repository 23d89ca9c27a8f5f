"""Incremental audio encoders for each format of the API.

A streamed file is sent while it is encoded, so its header cannot state its length. A whole file is returned
at the end, with its length in the header if the format has a field for it.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from typing import Literal, Protocol

import av
import numpy as np
from numpy.typing import NDArray

from dia_server.audio import wav
from dia_server.errors import AudioProcessingError
from dia_server.units import SAMPLE_RATE

AudioFormat = Literal["wav", "mp3", "opus", "aac", "flac", "pcm"]

PCM_RATE = 24_000
"""Sample rate in Hz of headerless PCM; OpenAI's clients assume 24 kHz."""

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
    """FFmpeg's settings for a format; the `streamed_` options apply only to streamed files."""

    container: str
    name: str
    sample_rate: int
    sample_format: str
    bit_rate: int | None = None
    streamed_container: dict[str, str] = field(default_factory=dict)
    streamed_codec: dict[str, str] = field(default_factory=dict)


_CODECS: dict[AudioFormat, _Codec] = {
    "mp3": _Codec(
        "mp3",
        "libmp3lame",
        SAMPLE_RATE,
        "s16p",
        128_000,
        # streamed: no Xing frame, because it states the length, and no bit reservoir, because it makes a
        # frame wait for later ones
        streamed_container={"write_xing": "0", "id3v2_version": "0"},
        streamed_codec={"reservoir": "0"},
    ),
    # streamed: Ogg pages of one packet, not of 1 s. A page is written once the next is full, so with packets
    # of 10 ms the first audio is sent after 20 ms; the file is 17 % larger than with packets of 20 ms
    "opus": _Codec(
        "ogg",
        "libopus",
        48_000,
        "s16",
        64_000,
        streamed_container={"page_duration": "10000"},
        streamed_codec={"frame_duration": "10"},
    ),
    "aac": _Codec("adts", "aac", SAMPLE_RATE, "fltp", 128_000),
    # streamed, for low latency: no padding for tags, and frames of 23 ms instead of 104 ms
    "flac": _Codec(
        "flac",
        "flac",
        SAMPLE_RATE,
        "s16",
        streamed_container={"metadata_header_padding": "0"},
        streamed_codec={"frame_size": "1024"},
    ),
    "pcm": _Codec("s16le", "pcm_s16le", PCM_RATE, "s16"),
}


def encode(samples: NDArray[np.float32], sample_rate: int, audio_format: AudioFormat) -> bytes:
    """Return mono `samples` (n,) at `sample_rate` Hz as a whole file; raises AudioProcessingError."""
    encoder = Encoder(audio_format, sample_rate, whole=True)
    encoder.push(samples)
    return encoder.finish()


class Encoder:
    """Encodes mono samples at `sample_rate` Hz into the bytes of one file.

    `push` returns a streamed file's bytes with a lag of at most 0.1 s of audio; `finish` returns all bytes of
    a `whole` file. Calls use CPU time, so make them in a worker thread; they may come from different threads,
    but must not overlap. An unfinished encoder needs no cleanup. The constructor and every call may raise
    AudioProcessingError.
    """

    def __init__(self, audio_format: AudioFormat, sample_rate: int, *, whole: bool = False) -> None:
        self._format: AudioFormat = audio_format
        self._file: _Stream | _Whole = _Whole() if whole else _Stream()
        self._writer: _Writer
        if audio_format == "wav":
            self._writer = _WavWriter(self._file, sample_rate)
        else:
            with _failures(audio_format):
                self._writer = _CodecWriter(self._file, _CODECS[audio_format], sample_rate)

    def push(self, samples: NDArray[np.float32]) -> bytes:
        """Encode `samples`; return the new bytes of a streamed file, possibly none, or b"" for a whole file.

        The first bytes of a streamed file are its header, if the format has one.
        """
        with _failures(self._format):
            self._writer.write(samples)
        return self._file.drain()

    def finish(self) -> bytes:
        """Return the remaining bytes (all bytes of a whole file). Call `push` no more afterwards."""
        with _failures(self._format):
            self._writer.close()
        return self._file.end()


class _Stream:
    """Write-only buffer of a streamed file; `drain` returns the bytes written since its last call."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes, /) -> int:
        self._held += data
        return len(data)

    def drain(self) -> bytes:
        taken, self._held = bytes(self._held), bytearray()
        return taken

    end = drain


class _Whole(BytesIO):
    """Seekable buffer of a whole file; `drain` returns b"", `end` returns the file."""

    def drain(self) -> bytes:
        return b""

    def end(self) -> bytes:
        return self.getvalue()


class _Writer(Protocol):
    def write(self, samples: NDArray[np.float32], /) -> None: ...

    def close(self) -> None: ...


class _WavWriter:
    def __init__(self, file: _Stream | _Whole, sample_rate: int) -> None:
        self._file = file
        self._rate = sample_rate
        self._length = 0
        file.write(wav.header(sample_rate))

    def write(self, samples: NDArray[np.float32]) -> None:
        self._length += self._file.write(wav.pcm16(samples))

    def close(self) -> None:
        if isinstance(self._file, _Whole):
            self._file.seek(0)
            self._file.write(wav.header(self._rate, self._length))


class _CodecWriter:
    """Encodes with FFmpeg's codec and container."""

    def __init__(self, file: _Stream | _Whole, codec: _Codec, sample_rate: int) -> None:
        self._rate = sample_rate
        self._written = 0
        streamed = isinstance(file, _Stream)
        options = {"fflags": "+bitexact"}  # reproducible files: no random serial number in Ogg
        if streamed:
            options |= {"flush_packets": "1"} | codec.streamed_container
        self._container = av.open(file, "w", format=codec.container, container_options=options)
        # container and stream form a reference cycle that holds the codec until the container is closed
        weakref.finalize(self, self._container.close).atexit = False
        stream = self._container.add_stream(
            codec.name, rate=codec.sample_rate, options=codec.streamed_codec if streamed else None
        )
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        stream.format = codec.sample_format
        if codec.bit_rate is not None:
            stream.bit_rate = codec.bit_rate
        self._stream = stream
        self._container.start_encoding()  # writes the header even if no samples follow

    def write(self, samples: NDArray[np.float32]) -> None:
        if not len(samples):
            return
        clipped = np.ascontiguousarray(samples.clip(-1.0, 1.0)[None])
        frame = av.AudioFrame.from_ndarray(clipped, format="flt", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._written
        self._written += len(samples)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


@contextmanager
def _failures(audio_format: AudioFormat) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise AudioProcessingError(f"The audio could not be encoded as {audio_format}: {error}") from error
