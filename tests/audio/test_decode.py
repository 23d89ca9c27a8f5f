import io
import tempfile
import time
import tracemalloc
import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from dia_server.audio import wav
from dia_server.audio.decode import PEAK, decode
from dia_server.audio.encode import AudioFormat, encode
from dia_server.errors import UnusableAudio
from dia_server.native import NativeWorker
from dia_server.units import MIB
from tests.audio.measured import MeasuredPromptMaker
from tests.bombs import mp3_with_cover
from tests.recordings import RATE, container, sound, wav_file


@pytest.mark.parametrize("audio_format", ["wav", "mp3", "opus", "aac", "flac"])
def test_each_output_format_can_be_decoded(audio_format: AudioFormat) -> None:
    samples = decode(io.BytesIO(encode(sound(2.0), RATE, audio_format)), RATE)

    assert len(samples) == pytest.approx(2 * RATE, abs=0.06 * RATE)
    assert np.abs(samples).max() == pytest.approx(PEAK)


@pytest.mark.parametrize(("format_name", "codec"), [("ipod", "aac"), ("ipod", "alac"), ("webm", "libopus")])
def test_m4a_and_webm_can_be_decoded(format_name: str, codec: str) -> None:
    samples = decode(io.BytesIO(container(sound(2.0), format_name, codec)), RATE)

    assert len(samples) == pytest.approx(2 * RATE, abs=0.06 * RATE)


def test_stereo_becomes_mono_at_the_requested_rate() -> None:
    left = sound(1.0, rate=16_000)
    file = io.BytesIO()
    with wave.open(file, "wb") as stereo:
        stereo.setparams((2, 2, 16_000, 0, "NONE", ""))
        stereo.writeframes(wav.pcm16(np.stack([left, np.zeros_like(left)], axis=1).ravel()))
    file.seek(0)

    samples = decode(file, RATE)

    assert len(samples) == pytest.approx(RATE, abs=50)
    assert np.abs(samples).max() == pytest.approx(PEAK)


def test_quiet_and_loud_recordings_get_the_same_peak() -> None:
    for loudness in (0.01, 0.3, 1.0):
        assert np.abs(decode(io.BytesIO(wav_file(1.0, loudness)), RATE)).max() == pytest.approx(PEAK)


@pytest.mark.parametrize(("seconds", "fits"), [(0.45, False), (0.5, True), (60.0, True), (60.5, False)])
def test_half_a_second_to_a_minute_is_accepted(seconds: float, fits: bool) -> None:
    file = io.BytesIO(wav_file(seconds))
    if fits:
        assert len(decode(file, RATE)) == round(seconds * RATE)
    else:
        with pytest.raises(UnusableAudio, match=r"0\.5 to 60 s"):
            decode(file, RATE)


def test_a_minute_padded_by_its_codec_is_accepted() -> None:
    assert len(decode(io.BytesIO(encode(sound(60.0), RATE, "mp3")), RATE)) == 60 * RATE


@pytest.mark.parametrize("claimed", [0, 1_000, 0x7FFF_FFFF, 0xFFFF_FFFF - 36])
def test_the_length_in_a_header_is_not_trusted(claimed: int) -> None:
    file = wav.header(RATE, claimed) + wav.pcm16(sound(0.2))

    with pytest.raises(UnusableAudio):
        decode(io.BytesIO(file), RATE)


def test_a_streamed_wav_without_a_length_is_read_to_its_end() -> None:
    assert len(decode(io.BytesIO(wav.header(RATE) + wav.pcm16(sound(1.0))), RATE)) == RATE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF",
        b"This is no audio at all.\n" * 200,
        bytes(100_000),
        np.random.default_rng(0).bytes(2_000_000),
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
    ],
    ids=["empty", "cut", "text", "zeros", "noise", "playlist", "concatenation"],
)
def test_files_without_audio_are_refused(content: bytes) -> None:
    with pytest.raises(UnusableAudio, match="cannot be decoded"):
        decode(io.BytesIO(content), RATE)


def test_a_truncated_file_gives_its_part() -> None:
    file = encode(sound(4.0), RATE, "mp3")

    assert len(decode(io.BytesIO(file[: len(file) // 2]), RATE)) == pytest.approx(2 * RATE, abs=0.2 * RATE)


def test_a_damaged_frame_is_skipped() -> None:
    file = bytearray(encode(sound(4.0), RATE, "mp3"))
    file[20_000:20_200] = bytes(200)

    assert len(decode(io.BytesIO(file), RATE)) > 3 * RATE


def test_silence_and_nan_samples_are_refused() -> None:
    with pytest.raises(UnusableAudio, match="silent"):
        decode(io.BytesIO(wav_file(1.0, loudness=0)), RATE)
    broken = np.full(RATE, np.nan, np.float32)
    with pytest.raises(UnusableAudio, match="not numbers"):
        decode(io.BytesIO(container(broken, "wav", "pcm_f32le")), RATE)


def test_a_video_without_sound_is_refused() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as film:
        stream = film.add_stream("ffv1", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.time_base = 32, 32, Fraction(1, 10)
        film.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        film.mux(stream.encode(None))
    file.seek(0)

    with pytest.raises(UnusableAudio, match="no audio"):
        decode(file, RATE)


def test_two_hours_of_mp3_are_refused_at_once() -> None:
    minute = encode(np.zeros(60 * RATE, np.float32), RATE, "mp3")

    _refused_at_once(minute * 120, "longer than 60 s")


def test_a_decompression_bomb_is_refused_at_once() -> None:
    bomb = encode(np.zeros(300 * RATE, np.float32), RATE, "flac")
    assert len(bomb) < 200_000

    _refused_at_once(bomb, "longer than 60 s")


def test_a_sample_rate_of_1_hz_is_refused_at_once() -> None:
    _refused_at_once(wav_file(1.0, rate=RATE, claimed_rate=1), "sample rate is 1 Hz")


def _refused_at_once(content: bytes, refusal: str) -> None:
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(UnusableAudio, match=refusal):
        decode(io.BytesIO(content), RATE)
    assert time.perf_counter() - started < 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6


def test_a_cover_that_would_take_gigabytes_is_not_decoded() -> None:
    worker = NativeWorker("decoder", MeasuredPromptMaker, deadline_s=60, memory=None)
    with tempfile.TemporaryFile() as plain, tempfile.TemporaryFile() as bomb:
        plain.write(mp3_with_cover(1))
        bomb.write(mp3_with_cover(side=5_000))  # 100 MB
        plain.flush()
        bomb.flush()
        before = worker.call(MeasuredPromptMaker.peak_after, plain)
        peak = worker.call(MeasuredPromptMaker.peak_after, bomb)
    worker.close()

    assert peak - before < 32 * MIB


def test_a_codec_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(UnusableAudio, match="cannot be decoded"):
        decode(io.BytesIO(container(sound(1.0), "matroska", "tta")), RATE)


def test_too_many_channels_are_refused() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as many:
        many.setparams((16, 2, RATE, 0, "NONE", ""))
        many.writeframes(bytes(2 * 16 * RATE))
    file.seek(0)

    with pytest.raises(UnusableAudio, match="16 channels; the limit is 8"):
        decode(file, RATE)
