import math

import numpy as np
import pytest
import torch
import torchaudio  # type: ignore[import-untyped]

from dia_server.audio.decode import PEAK, decode
from dia_server.audio.loudness import CEILING, KNEE, MAX_EXCESS_DB, TARGET, amplify, gain_db, measure
from tests.audio.signals import RATE, Samples, silent_samples, tone
from tests.speech_clips import load_clips


def recordings() -> dict[str, Samples]:
    """Return real speech as it is stored: mono, 44.1 kHz, its peak at PEAK."""
    found = {}
    for name, clip in load_clips().items():
        with clip.path.open("rb") as file:
            found[name] = decode(file, RATE)
    return found


def test_a_full_scale_tone_has_the_loudness_that_the_standard_states() -> None:
    """ITU-R BS.1770: a sine of 997 Hz at 0 dBFS in one channel reads -3.01 LKFS."""
    assert measure(tone(3, 997, 1.0), RATE) == pytest.approx(-3.01, abs=0.05)
    assert measure(tone(3, 997, 0.1), RATE) == pytest.approx(-23.01, abs=0.05)


def test_speech_is_as_loud_as_another_implementation_says() -> None:
    for samples in recordings().values():
        theirs = torchaudio.functional.loudness(torch.from_numpy(samples[None]), RATE).item()
        assert measure(samples, RATE) == pytest.approx(theirs, abs=0.3)


@pytest.mark.parametrize("seconds", [0.02, 0.3, 0.399, 0.4, 0.45])
def test_a_clip_shorter_than_a_block_has_its_power(seconds: float) -> None:
    assert measure(tone(seconds, 1000), RATE) == pytest.approx(measure(tone(5, 1000), RATE), abs=0.1)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), silent_samples(0.1), silent_samples(2)])
def test_silence_has_neither_loudness_nor_gain(samples: Samples) -> None:
    assert measure(samples, RATE) is None
    assert gain_db(samples, RATE) == 0.0


def test_noise_below_the_absolute_gate_is_silence() -> None:
    noise = np.random.default_rng(1).normal(0, 1e-5, RATE).astype(np.float32)

    assert measure(noise, RATE) is None


def test_recordings_of_speech_become_equally_loud() -> None:
    loudness = {}
    for name, samples in recordings().items():
        delivered = amplify(samples, gain_db(samples, RATE))
        loudness[name] = measure(delivered, RATE)
        assert np.abs(delivered).max() <= CEILING

    assert loudness == pytest.approx(dict.fromkeys(loudness, TARGET), abs=0.3)


def test_a_quiet_recording_with_one_click_is_not_lifted_far_above_the_ceiling() -> None:
    samples = tone(3, amplitude=0.01)
    samples[1000] = PEAK

    excess_db = 20 * math.log10(PEAK / CEILING)
    assert gain_db(samples, RATE) == pytest.approx(MAX_EXCESS_DB - excess_db, abs=0.01)


def test_chunks_of_any_size_give_the_samples_of_the_whole() -> None:
    random = np.random.default_rng(1)
    samples = random.normal(0, 0.4, 20_000).astype(np.float32)
    whole = amplify(samples, 3.3)

    for _ in range(20):
        cuts = np.sort(random.integers(0, len(samples), 50))
        parts = [amplify(part, 3.3) for part in np.split(samples, cuts)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_the_limiter_changes_only_samples_above_its_knee_and_keeps_their_order() -> None:
    samples = np.linspace(-2, 2, 40_001, dtype=np.float32)
    limited = amplify(samples, 0.0)

    quiet = np.abs(samples) <= np.float32(KNEE)
    assert limited.dtype == np.float32
    np.testing.assert_array_equal(limited[quiet], samples[quiet])
    np.testing.assert_array_equal(limited, -limited[::-1])
    assert (np.diff(limited) >= -1e-7).all()
    assert limited.max() == pytest.approx(CEILING, abs=1e-7)
    assert len(amplify(samples[:0], 6.0)) == 0


def test_a_gain_is_in_decibels() -> None:
    np.testing.assert_allclose(amplify(tone(0.1, amplitude=0.1), -20.0), tone(0.1, amplitude=0.01), rtol=1e-5)
