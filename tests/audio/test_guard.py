import numpy as np
import pytest

from dia_server.audio.guard import judge
from tests.audio.signals import RATE, Samples, silent_samples, tone


def speech(seconds: float) -> Samples:
    """Return a tone in syllables of 0.25 s that fades at its end, as a voice does."""
    times = np.arange(round(seconds * RATE)) / RATE
    loudness = np.sin(np.pi * times * 4) ** 2 * np.minimum(1, (seconds - times) / 0.2)
    return tone(seconds) * loudness.astype(np.float32)


def test_speech_of_the_estimated_duration_has_no_faults() -> None:
    verdict = judge(speech(5), RATE, estimated_s=5)

    assert verdict.faults == ()
    assert verdict.duration_s == 5
    assert verdict.clipped_share == 0


@pytest.mark.parametrize(("estimated_s", "faults"), [(4, ()), (8, ()), (25, ("too_short",))])
def test_speech_shorter_than_its_text_is_too_short(estimated_s: float, faults: tuple[str, ...]) -> None:
    assert judge(speech(5), RATE, estimated_s).faults == faults


@pytest.mark.parametrize(("seconds", "faults"), [(0.4, ()), (1.5, ()), (12, ("too_long",))])
def test_a_single_word_may_be_slow_but_not_babble(seconds: float, faults: tuple[str, ...]) -> None:
    assert judge(speech(seconds), RATE, estimated_s=0.3).faults == faults


def test_runs_at_full_scale_are_clipping() -> None:
    verdict = judge((speech(5) * 10).clip(-1, 1), RATE, estimated_s=5)

    assert verdict.faults == ("clipped",)
    assert verdict.clipped_share > 0.1


def test_single_peaks_at_full_scale_are_not_clipping() -> None:
    samples = speech(5)
    samples[::100] = 1.0
    samples[-RATE:] = speech(1)

    assert judge(samples, RATE, estimated_s=5).clipped_share == 0


@pytest.mark.parametrize("level", [0.0, 0.001])
def test_a_segment_without_speech_is_silent(level: float) -> None:
    assert judge(np.full(5 * RATE, level, np.float32), RATE, estimated_s=5).faults == ("silent",)


def test_a_pause_of_1_s_is_accepted_and_one_of_5_s_is_silence() -> None:
    def thinking(seconds: float) -> Samples:
        return np.concatenate([speech(3), silent_samples(seconds), speech(3)])

    assert judge(thinking(1), RATE, estimated_s=7).faults == ()
    verdict = judge(thinking(5), RATE, estimated_s=7)
    assert verdict.faults == ("silent",)
    assert verdict.longest_silence_s == pytest.approx(5, abs=0.2)


def test_speech_that_ends_at_full_level_is_cut_off() -> None:
    assert judge(tone(5), RATE, estimated_s=5).faults == ("cut_off",)


def test_no_samples_at_all_are_silent() -> None:
    verdict = judge(np.zeros(0, np.float32), RATE, estimated_s=1)

    assert "silent" in verdict.faults
    assert verdict.duration_s == verdict.tail == 0
