"""Decodes an uploaded audio file to a voice prompt: mono, of limited length, with a fixed peak.

A file's name, type and stated length are not trusted: decoding stops at the end of the data or at the limit.
FFmpeg is native code, so callers run this module in a child process (native/), with limits of time and
memory.
"""

from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from dia_server.errors import UnusableAudio

MIN_S, MAX_S = 0.5, 60.0
"""Minimum and maximum seconds of a voice prompt."""
SLACK_S = 0.1
"""Seconds beyond MAX_S that are cut off instead of refused, because codecs pad their last frame."""
PEAK = 0.95
"""Amplitude of the loudest sample after levelling."""
SILENCE = 0.001
"""Peak amplitude (-60 dBFS) below which a recording counts as silent."""
RATES = (8_000, 192_000)
"""Minimum and maximum sample rate in Hz. At 1 Hz, a small file would be resampled to gigabytes."""
MAX_CHANNELS = 8
"""Maximum channels of a file."""
MAX_STREAMS = 32
"""Maximum streams of a file: a film has a soundtrack for each language, and subtitles."""
MAX_CLAIMED_S = 3600.0
"""Maximum seconds that a file's header may state. It is far above MAX_S, because headers can be wrong;
decoding measures the actual duration."""

CONTAINERS = "wav,w64,mp3,flac,ogg,aac,aiff,caf,mov,matroska"
"""FFmpeg's names of allowed formats; mov includes M4A and MP4, matroska includes WebM. Others, such as
playlists, could make FFmpeg open further files or addresses."""
CODECS = ",".join(
    (
        *(
            "mp3float",
            "mp3",
            "mp2float",
            "mp2",
            "mp1float",
            "aac",
            "alac",
            "flac",
            "vorbis",
            "opus",
            "libopus",
        ),
        *("pcm_u8", "pcm_s8", "pcm_alaw", "pcm_mulaw", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"),
        *("pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"),
        *("adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "gsm_ms", "amrnb", "amrwb", "ac3", "eac3"),
    )
)
"""FFmpeg's names of allowed decoders. Picture decoders are not allowed: FFmpeg would decode covers while
probing, and a PNG cover of 1 MB takes a gigabyte."""


def decode(file: BinaryIO, sample_rate: int) -> NDArray[np.float32]:
    """Return the audio in `file` as mono samples (n,) at `sample_rate` Hz with their peak at PEAK.

    Raises UnusableAudio if the file cannot be decoded, is silent, lasts less than MIN_S or more than MAX_S,
    or exceeds the limits of sample rate, channels or streams.
    """
    try:
        options = {
            "format_whitelist": CONTAINERS,
            "codec_whitelist": CODECS,
            "max_streams": str(MAX_STREAMS),
        }
        with av.open(file, "r", options=options, metadata_errors="ignore") as container:
            samples = _resampled(_frames(container), sample_rate)
    except (av.FFmpegError, ValueError) as error:
        raise UnusableAudio(
            "the file cannot be decoded; WAV, MP3, FLAC, OGG, M4A and WebM can be used"
        ) from error
    if len(samples) < MIN_S * sample_rate:
        raise UnusableAudio(f"the audio lasts {len(samples) / sample_rate:.2f} s; {_limits()}")
    return _levelled(samples[: round(MAX_S * sample_rate)])


def _frames(container: InputContainer) -> Iterator[av.AudioFrame]:
    """Yield the frames of the first audio stream; skip damaged packets, as players do.

    Raises UnusableAudio if there is no audio, if the stream lasts longer than MAX_S + SLACK_S, or if its
    sample rate or channels exceed a limit. Raises ValueError if FFmpeg has no decoder for the stream.
    """
    if not container.streams.audio:
        raise UnusableAudio("the file holds no audio")
    stream = container.streams.audio[0]
    if (context := stream.codec_context) is None:  # no decoder for this codec
        raise ValueError(stream.type)
    _check_claims(container, context)
    context.options = {"codec_whitelist": CODECS}  # the container's options apply only to probing
    context.thread_count = 1
    seconds = 0.0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue
        for frame in frames:
            assert isinstance(frame, av.AudioFrame)
            _check_rate(frame.sample_rate)
            seconds += frame.samples / frame.sample_rate
            if seconds > MAX_S + SLACK_S:
                raise UnusableAudio(f"the audio lasts longer than {MAX_S:.0f} s; {_limits()}")
            yield frame


def _check_claims(container: InputContainer, context: av.AudioCodecContext) -> None:
    """Raise UnusableAudio if the header states a sample rate, duration or channel count beyond its limit."""
    if context.sample_rate:  # some codecs give the rate only in their frames
        _check_rate(context.sample_rate)
    if (container.duration or 0) / av.time_base > MAX_CLAIMED_S:
        raise UnusableAudio(f"the audio lasts longer than {MAX_S:.0f} s; {_limits()}")
    if context.channels > MAX_CHANNELS:
        raise UnusableAudio(f"the audio has {context.channels} channels; the limit is {MAX_CHANNELS}")


def _check_rate(rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise UnusableAudio(f"the sample rate is {rate} Hz; the limits are 8 to 192 kHz")


def _resampled(frames: Iterator[av.AudioFrame], sample_rate: int) -> NDArray[np.float32]:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)
    chunks = [np.empty(0, np.float32)]
    for frame in frames:
        chunks += [chunk.to_ndarray()[0] for chunk in resampler.resample(frame)]
    if len(chunks) > 1:
        chunks += [chunk.to_ndarray()[0] for chunk in resampler.resample(None)]
    return np.concatenate(chunks)


def _levelled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    peak = float(np.abs(samples).max())
    if not np.isfinite(peak):
        raise UnusableAudio("the audio holds samples that are not numbers")
    if peak < SILENCE:
        raise UnusableAudio("the audio is silent")
    return samples * np.float32(PEAK / peak)


def _limits() -> str:
    return f"a voice prompt has {MIN_S} to {MAX_S:.0f} s, best 5 to 10 s"
