"""Format and duration of audio files."""

import io

import av

BEGINNINGS = {
    "mp3": (b"ID3", b"\xff\xfb", b"\xff\xf3"),
    "opus": (b"OggS",),
    "aac": (b"\xff\xf1", b"\xff\xf9"),
    "flac": (b"fLaC",),
    "wav": (b"RIFF",),
}


def seconds(audio: bytes, audio_format: str) -> float:
    """Assert that `audio` is of `audio_format`, and return its seconds; pcm is 24 kHz, 16-bit, mono."""
    if audio_format == "pcm":
        return len(audio) / 2 / 24_000
    assert audio.startswith(BEGINNINGS[audio_format])
    with av.open(io.BytesIO(audio), "r") as file:
        return sum((frame.samples / frame.sample_rate for frame in file.decode(audio=0)), start=0.0)
