import gc
import io
import shutil
import subprocess
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from dia_server.audio import wav
from dia_server.audio.encode import MEDIA_TYPES, PCM_RATE, AudioFormat, Encoder, encode
from tests.audio.signals import RATE, Samples, pitch, tone
from tests.memory import linux_only, resident

FORMATS: list[AudioFormat] = list(MEDIA_TYPES)
RATES: dict[AudioFormat, int] = {
    "wav": RATE, "mp3": RATE, "opus": 48_000, "aac": RATE, "flac": RATE, "pcm": PCM_RATE
}  # fmt: skip


@dataclass(frozen=True)
class Decoded:
    samples: Samples
    rate: int
    channels: int
    codec: str


def decode(file: bytes, audio_format: AudioFormat) -> Decoded:
    if audio_format == "pcm":
        return Decoded(
            np.frombuffer(file, "<i2").astype(np.float32) / np.float32(32768), PCM_RATE, 1, "pcm_s16le"
        )
    with av.open(io.BytesIO(file), "r") as container:
        stream = container.streams.audio[0]
        mono = av.AudioResampler(format="flt", layout="mono")
        frames = [*container.decode(audio=0), None]
        chunks = [made.to_ndarray()[0] for frame in frames for made in mono.resample(frame)]
        return Decoded(np.concatenate(chunks), stream.rate, stream.channels, stream.codec_context.name)


def streamed(
    samples: Samples, audio_format: AudioFormat, sizes: list[int], *, whole: bool = False
) -> Iterator[bytes]:
    """Yield the bytes of each push, then those of `finish`."""
    encoder, start, pushes = Encoder(audio_format, RATE, whole=whole), 0, 0
    while start < len(samples):
        size = sizes[pushes % len(sizes)]
        yield encoder.push(samples[start : start + size])
        start, pushes = start + size, pushes + 1
    yield encoder.finish()


def is_the_tone(decoded: Decoded, audio_format: AudioFormat, seconds: float, hertz: float) -> None:
    assert (decoded.rate, decoded.channels) == (RATES[audio_format], 1)
    assert len(decoded.samples) / decoded.rate == pytest.approx(seconds, rel=0.02)
    assert pitch(decoded.samples, decoded.rate) == pytest.approx(hertz, rel=0.005)
    middle = decoded.samples[decoded.rate // 2 : -decoded.rate // 2]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.06)  # LAME takes 5 %


@pytest.mark.parametrize("audio_format", FORMATS)
def test_a_whole_file_decodes_to_its_input(audio_format: AudioFormat) -> None:
    is_the_tone(decode(encode(tone(3), RATE, audio_format), audio_format), audio_format, 3, 440)


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("sizes", [[512], [997, 0, 1, 4410], [100_000]], ids=str)
def test_a_stream_decodes_to_its_input(audio_format: AudioFormat, sizes: list[int]) -> None:
    file = b"".join(streamed(tone(3), audio_format, sizes))

    is_the_tone(decode(file, audio_format), audio_format, 3, 440)


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("sizes", [[512], [997, 0, 1, 4410]], ids=str)
def test_a_whole_file_is_the_same_however_its_samples_come(
    audio_format: AudioFormat, sizes: list[int]
) -> None:
    *pushes, file = streamed(tone(1), audio_format, sizes, whole=True)

    assert not any(pushes)
    assert file == encode(tone(1), RATE, audio_format)


@pytest.mark.parametrize(
    ("audio_format", "length"),
    [
        ("wav", lambda file: int.from_bytes(file[40:44], "little") // 2),
        ("flac", lambda file: int.from_bytes(file[18:26], "big") & 0xF_FFFF_FFFF),  # of STREAMINFO
    ],
)
def test_the_header_of_a_whole_file_holds_its_length(
    audio_format: AudioFormat, length: Callable[[bytes], int]
) -> None:
    *_, file = streamed(tone(1), audio_format, [512], whole=True)

    assert length(file) == RATE
    assert length(b"".join(streamed(tone(1), audio_format, [512]))) != RATE


@pytest.mark.parametrize("audio_format", FORMATS)
def test_equal_samples_make_equal_files(audio_format: AudioFormat) -> None:
    assert encode(tone(1), RATE, audio_format) == encode(tone(1), RATE, audio_format)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_samples_may_be_pushed_one_by_one(audio_format: AudioFormat) -> None:
    samples = tone(0.2)

    file = b"".join(streamed(samples, audio_format, [1]))

    assert file == b"".join(streamed(samples, audio_format, [512]))


DECODERS: dict[AudioFormat, list[str]] = {
    "wav": ["sox", "--ignore-length", "{file}", "{decoded}"],
    "mp3": ["mpg123", "--quiet", "--wav", "{decoded}", "{file}"],
    "opus": ["opusdec", "--quiet", "{file}", "{decoded}"],
    "aac": ["faad", "-q", "-o", "{decoded}", "{file}"],
    "flac": ["sox", "--ignore-length", "{file}", "{decoded}"],
    "pcm": [
        *("sox", "--type", "raw", "--rate", str(PCM_RATE), "--channels", "1"),
        *("--encoding", "signed-integer", "--bits", "16", "{file}", "{decoded}"),
    ],
}
"""Decoders independent of FFmpeg that write a WAV file. FAAD writes mono as two equal channels."""


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("audio_format", FORMATS)
def test_independent_decoders_agree(audio_format: AudioFormat, whole: bool, tmp_path: Path) -> None:
    program, *arguments = DECODERS[audio_format]
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    file, decoded = tmp_path / f"tone.{audio_format}", tmp_path / "decoded.wav"
    file.write_bytes(b"".join(streamed(tone(4), audio_format, [512], whole=whole)))

    places = {"file": str(file), "decoded": str(decoded)}
    command = [program, *(argument.format(**places) for argument in arguments)]
    subprocess.run(command, check=True, capture_output=True)

    with wave.open(str(decoded)) as opened:
        rate, channels = opened.getframerate(), opened.getnchannels()
        samples = wav.samples(opened.readframes(10 * rate))
    if audio_format == "aac":
        samples, other = samples[::2], samples[1::2]
        np.testing.assert_array_equal(samples, other)
        header = file.read_bytes()[:4]  # whose channel configuration is in bits 23 to 25
        channels -= 1
        assert (header[2] & 1) << 2 | header[3] >> 6 == 1
    assert (rate, channels) == (RATES[audio_format], 1)
    assert len(samples) / rate == pytest.approx(4, rel=0.02)
    assert pitch(samples, rate) == pytest.approx(440, rel=0.005)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_bytes_come_within_100_ms_of_audio(audio_format: AudioFormat) -> None:
    *pushes, end = streamed(tone(3), audio_format, [441])
    sizes = np.array([len(push) for push in pushes])

    first = int(np.flatnonzero(sizes.cumsum() > 200)[0])  # beyond any header
    assert first * 441 / RATE <= 0.1
    longest_wait = np.diff(np.flatnonzero(sizes)).max()
    assert longest_wait * 441 / RATE <= 0.1
    assert len(end) < 0.05 * sizes.sum()


@pytest.mark.parametrize(
    ("audio_format", "samples"),
    [("wav", 1), ("pcm", 100), ("flac", 1024), ("opus", 1024), ("aac", 2048), ("mp3", 2304)],
)
def test_the_first_bytes_need_few_samples(audio_format: AudioFormat, samples: int) -> None:
    encoder = Encoder(audio_format, RATE)
    encoder.push(np.zeros(0, np.float32))  # the header

    assert encoder.push(tone(1)[:samples])


@pytest.mark.parametrize("audio_format", FORMATS)
def test_the_encoder_holds_back_less_than_100_ms(audio_format: AudioFormat) -> None:
    encoder = Encoder(audio_format, RATE)
    sent = encoder.push(tone(2))

    assert len(decode(sent, audio_format).samples) / RATES[audio_format] >= 1.9


@pytest.mark.parametrize("audio_format", FORMATS)
def test_each_format_has_its_codec(audio_format: AudioFormat) -> None:
    codecs = {"wav": "pcm_s16le", "mp3": "mp3float", "opus": "opus", "aac": "aac", "flac": "flac",
              "pcm": "pcm_s16le"}  # fmt: skip

    assert decode(encode(tone(1), RATE, audio_format), audio_format).codec == codecs[audio_format]


def test_a_streamed_wav_is_a_header_and_the_samples() -> None:
    first, second, end = streamed(tone(0.02), "wav", [441])

    assert first[:4] == b"RIFF"
    assert (len(first), len(second), len(end)) == (44 + 882, 882, 0)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_a_stream_without_samples_is_a_valid_file(audio_format: AudioFormat) -> None:
    encoder = Encoder(audio_format, RATE)

    file = encoder.push(np.zeros(0, np.float32)) + encoder.finish()

    assert bool(file) == (audio_format in ("wav", "opus", "flac"))  # the others have no header


@pytest.mark.parametrize("audio_format", FORMATS)
def test_samples_beyond_full_scale_are_clipped_not_wrapped(audio_format: AudioFormat) -> None:
    decoded = decode(encode(tone(1, amplitude=3.0), RATE, audio_format), audio_format)

    assert pitch(decoded.samples, decoded.rate) == pytest.approx(440, rel=0.005)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_dropping_an_unfinished_encoder_needs_no_garbage_collector(audio_format: AudioFormat) -> None:
    encode(tone(0.5), RATE, audio_format)  # the first use of a codec leaves garbage of its own
    gc.freeze()  # what there is already is not looked at
    gc.disable()
    try:
        encoder = Encoder(audio_format, RATE)
        encoder.push(tone(0.5))
        del encoder

        assert gc.collect() == 0
    finally:
        gc.enable()
        gc.unfreeze()


@linux_only
@pytest.mark.parametrize(
    ("audio_format", "whole"),
    [
        *((audio_format, False) for audio_format in FORMATS),
        *(("wav", True), ("mp3", True)),
        *(pytest.param(one, True, marks=pytest.mark.full) for one in FORMATS if one not in ("wav", "mp3")),
    ],
)
def test_the_encoder_keeps_no_samples(audio_format: AudioFormat, whole: bool) -> None:
    """60 s of samples take 10 MB as floats, and 5 MB as integers."""
    encoder, second = Encoder(audio_format, RATE, whole=whole), tone(1)
    for _ in range(3):
        encoder.push(second)
    before = resident()
    for _ in range(60):
        encoder.push(second)
    grown = resident() - before

    file = len(encoder.finish()) if whole else 0
    assert grown < 1.2 * file + 4 * 2**20
