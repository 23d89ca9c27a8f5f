import io
from typing import get_args

import av
import numpy as np
import pytest

from dia_server.audio.encode import MEDIA_TYPES, PCM_RATE, AudioFormat, encode
from tests.audio.pitch import pitch

SECONDS = 3
TONE = (0.5 * np.sin(2 * np.pi * 220 * np.arange(SECONDS * 44_100) / 44_100)).astype(np.float32)
DECODED = {
    "wav": ("wav", "pcm_s16le", 44_100),
    "mp3": ("mp3", "mp3float", 44_100),
    "opus": ("ogg", "opus", 48_000),
    "aac": ("aac", "aac", 44_100),
    "flac": ("flac", "flac", 44_100),
}


@pytest.mark.parametrize("audio_format", DECODED)
def test_a_file_decodes_to_what_went_in(audio_format: AudioFormat) -> None:
    container, codec, rate = DECODED[audio_format]

    with av.open(io.BytesIO(encode(TONE, 44_100, audio_format)), "r") as file:
        frames = list(file.decode(audio=0))
        assert (file.format.name, file.streams.audio[0].codec_context.name) == (container, codec)
    samples = np.concatenate([frame.to_ndarray().astype(np.float32)[0] for frame in frames])

    assert {(frame.sample_rate, frame.layout.name.replace("1 channels", "mono")) for frame in frames} == {
        (rate, "mono")
    }
    assert len(samples) / rate == pytest.approx(SECONDS, rel=0.02)
    assert pitch(samples, rate) == pytest.approx(220, rel=0.01)


def test_pcm_is_24_khz_little_endian() -> None:
    samples = np.frombuffer(encode(TONE, 44_100, "pcm"), "<i2").astype(np.float32)

    assert len(samples) == SECONDS * PCM_RATE
    assert pitch(samples, PCM_RATE) == pytest.approx(220, rel=0.01)


def test_a_wav_header_is_exact() -> None:
    file = encode(TONE, 44_100, "wav")

    assert file[:4] == b"RIFF"
    assert int.from_bytes(file[4:8], "little") == len(file) - 8
    assert int.from_bytes(file[40:44], "little") == len(file) - 44 == 2 * len(TONE)


@pytest.mark.parametrize("audio_format", get_args(AudioFormat))
def test_too_loud_is_clipped_and_not_wrapped_round(audio_format: AudioFormat) -> None:
    assert audio_format in MEDIA_TYPES
    assert encode(TONE * 10, 44_100, audio_format)
    assert np.frombuffer(encode(np.full(9, 1.5, np.float32), 44_100, "wav")[44:], "<i2").min() == 32767
