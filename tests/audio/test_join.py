import numpy as np
import pytest

from dia_server.audio.join import FADE_OUT_S, MARGIN_S, Join
from tests.audio.signals import RATE, Samples, silent_samples, tone

Segment = tuple[float, Samples]
"""Pause before a segment in seconds, and its samples."""


def join(segments: list[Segment], size: int = 512) -> Samples:
    joint, out = Join(RATE), []
    for pause_s, samples in segments:
        out.append(joint.begin(pause_s))
        out += [joint.push(samples[start : start + size]) for start in range(0, len(samples), size)]
    return np.concatenate([*out, joint.finish()])


def longest_silence(samples: Samples) -> float:
    sounds = np.flatnonzero(np.abs(samples) > 0.003)
    return float(np.diff(sounds).max()) / RATE


def test_two_segments_meet_without_a_click() -> None:
    """These segments end and begin at a high amplitude: a click would be a jump between two samples."""
    peak = np.full(RATE // 10, 0.5, np.float32)

    joint = join([(0, peak), (0, -peak)])

    assert np.abs(np.diff(joint, prepend=0, append=0)).max() < 0.01
    assert len(joint) == 2 * len(peak)


def test_the_pause_between_segments_without_silence_is_exact() -> None:
    joint = join([(0, tone(0.5)), (0.4, tone(0.5))])

    assert len(joint) == round(1.4 * RATE)
    assert longest_silence(joint) == pytest.approx(0.4, abs=0.005)


def test_silence_around_segments_is_trimmed_to_its_margins() -> None:
    segment = np.concatenate([silent_samples(1), tone(0.5), silent_samples(2)])

    joint = join([(0, segment), (0.4, segment)])

    assert len(joint) / RATE == pytest.approx(1.0 + 0.4 + 4 * MARGIN_S, abs=0.002)
    assert longest_silence(joint) == pytest.approx(0.4 + 2 * MARGIN_S, abs=0.005)


def test_silence_within_a_segment_is_kept() -> None:
    segment = np.concatenate([tone(0.2), silent_samples(1), tone(0.2)])

    joint = join([(0, segment)])

    assert len(joint) == len(segment)
    assert np.array_equal(joint[1000:-1000], segment[1000:-1000])


def test_a_pause_may_come_first_and_last() -> None:
    joint = Join(RATE)

    whole = np.concatenate([joint.begin(0.5), joint.push(tone(1)), joint.begin(0.25), joint.finish()])

    assert len(whole) == round(1.75 * RATE)
    assert not whole[: RATE // 2].any()
    assert not whole[-RATE // 4 :].any()


@pytest.mark.parametrize("size", [1, 7, 441, 100_000])
def test_the_result_does_not_depend_on_the_chunks(size: int) -> None:
    segments = [
        (
            0.0,
            np.concatenate(
                [silent_samples(0.1), tone(0.1), silent_samples(0.1), tone(0.1), silent_samples(0.1)]
            ),
        )
    ] * 2

    assert np.array_equal(join(segments, size), join(segments, 512))


def test_sound_is_held_back_only_for_the_fade() -> None:
    joint = Join(RATE)
    joint.begin(0)

    given = sum(len(joint.push(tone(0.01, 441))) for _ in range(100))

    assert given >= (1 - FADE_OUT_S - 0.001) * RATE


def test_a_segment_without_a_sound_leaves_only_its_pause() -> None:
    joint = join([(0, tone(0.1)), (0.5, silent_samples(3)), (0.1, np.zeros(0, np.float32))])

    assert len(joint) == round(0.7 * RATE)


def test_joining_no_segments_is_empty() -> None:
    assert len(Join(RATE).finish()) == 0
