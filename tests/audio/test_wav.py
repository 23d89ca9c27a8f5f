import io
import struct
import wave

import numpy as np

from dia_server.audio import wav


def test_a_whole_file_has_exact_sizes() -> None:
    pcm = wav.pcm16(np.zeros(100, np.float32))
    file = wav.header(44_100, len(pcm)) + pcm

    assert struct.unpack("<I", file[4:8])[0] == len(file) - 8
    with wave.open(io.BytesIO(file)) as opened:
        assert (opened.getframerate(), opened.getnchannels(), opened.getsampwidth()) == (44_100, 1, 2)
        assert opened.getnframes() == 100


def test_the_header_of_a_stream_has_maximum_sizes() -> None:
    header = wav.header(24_000)

    assert len(header) == 44
    assert header[4:8] == header[40:44] == b"\xff\xff\xff\xff"
    assert header[36:40] == b"data"


def test_samples_become_clipped_little_endian_16_bit_pcm() -> None:
    pcm = wav.pcm16(np.array([0.0, 1.0, -1.0, 2.0, -2.0, 0.5], np.float32))

    assert struct.unpack("<6h", pcm) == (0, 32767, -32767, 32767, -32767, 16383)
