"""The words that are heard in decoded texts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dia_server.engine.dia.codec import load_codec
from dia_server.engine.dia.delay import delayed
from dia_server.errors import WhisperNotAvailable
from dia_server.fidelity import listening
from dia_server.fidelity.decoding import Decoded
from dia_server.services.voices.transcription import Confidence, Transcription
from dia_server.units import HOP
from tests.engine.dia.reference import BOS, DELAY
from tests.engine.dia.tiny import save_dac

FRAMES = (60, 7, 0)
"""Frames of three decoded texts; one has more than a chunk."""


class Heard:
    """Stands for Whisper: hears what it is told, and keeps the size of each recording."""

    transcripts: Iterator[str]
    sizes: list[int]
    closed: bool

    def __init__(self, model: str, *, idle_s: float) -> None:
        Heard.sizes, Heard.closed = [], False

    async def transcribe(self, recording: bytes) -> Transcription:
        Heard.sizes.append(len(recording))
        sure = Confidence(
            language=None, language_probability=None, average_log_probability=0.0, no_speech_probability=0.0
        )
        return Transcription(text=next(Heard.transcripts), confidence=sure, is_sampled=False)

    async def close(self) -> None:
        Heard.closed = True


def decoded(frames: int) -> Decoded:
    codes = torch.randint(0, 1024, (frames, 9))
    return Decoded(delayed(codes, DELAY, BOS), end=frames + 1, reached_limit=False)


def test_wrong_words_are_counted_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "Whisper", Heard)
    codec = load_codec(save_dac(tmp_path / "dac"), torch.device("cpu"))
    texts = ("[S1] One two. [S2] (laughs) Three four.", "[S1] I have 20.", "[S1] Gone.")
    Heard.transcripts = iter(["One, two, three four", "I have twenty.", "One, too.", "I had"])
    runs = [[decoded(frames) for frames in FRAMES] for _ in range(2)]
    counted: list[int] = []

    shares = listening.wrong_words_per_hundred("tiny.en", texts, runs, codec, DELAY, counted.append)

    assert shares == [100 * 1 / 8, 100 * (3 + 2 + 1) / 8]
    assert counted == [1, 2, 3, 4, 5, 6]
    header = Heard.sizes[0] - 60 * HOP * 2
    assert 0 < header < 200
    assert Heard.sizes == [header + frames * HOP * 2 for frames in (60, 7)] * 2
    assert Heard.closed


def test_a_missing_whisper_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(WhisperNotAvailable, match="--whisper needs faster-whisper"):
        listening.check_whisper("tiny.en")
