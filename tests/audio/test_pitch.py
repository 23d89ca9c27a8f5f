import math
import statistics

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from dia_server.audio.pitch import median_pitch
from tests.recordings import RATE, sound
from tests.speech_clips import Clip, load_clips

CLIPS = load_clips()


def semitones(one: float, other: float) -> float:
    return abs(12 * math.log2(one / other))


def read(clip: Clip) -> tuple[NDArray[np.float32], int]:
    with av.open(str(clip.path)) as file:
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in file.decode(audio=0)])
        return samples.astype(np.float32), file.streams.audio[0].rate


@pytest.mark.parametrize("pitch", [70.0, 98.0, 150.0, 220.0, 330.0, 440.0])
@pytest.mark.parametrize("rate", [16_000, RATE, 48_000])
def test_the_pitch_of_a_hum_is_found(pitch: float, rate: int) -> None:
    found = median_pitch(sound(2.0, pitch=pitch, rate=rate), rate)

    assert found is not None
    assert semitones(found, pitch) < 0.3


def test_the_pitch_of_speech_is_that_of_torchaudio() -> None:
    """torchaudio gives a pitch of unvoiced frames too, so only loud frames are compared."""
    import torch
    from torchaudio.functional import detect_pitch_frequency  # type: ignore[import-untyped]

    distances = []
    for clip in CLIPS.values():
        samples, rate = read(clip)
        theirs = detect_pitch_frequency(torch.from_numpy(samples)[None], rate, win_length=5)[0].numpy()
        hop = rate // 100
        levels = np.array([np.std(samples[n * hop : (n + 3) * hop]) for n in range(len(theirs))])
        found = median_pitch(samples, rate)
        assert found is not None
        distances.append(semitones(found, float(np.median(theirs[levels > 0.25 * levels.max()]))))

    assert statistics.median(distances) < 1
    assert max(distances) < 4


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(RATE, np.float32),
        np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32),
        sound(0.02),
        np.zeros(0, np.float32),
    ],
    ids=["silence", "noise", "short", "empty"],
)
def test_what_has_no_pitch_gets_none(samples: NDArray[np.float32]) -> None:
    assert median_pitch(samples, RATE) is None


def test_a_short_sound_in_silence_counts() -> None:
    samples = np.concatenate([np.zeros(RATE, np.float32), sound(0.5, pitch=180), np.zeros(RATE, np.float32)])

    found = median_pitch(samples, RATE)

    assert found is not None
    assert semitones(found, 180) < 0.3
