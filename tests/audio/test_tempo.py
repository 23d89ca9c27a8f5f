import numpy as np
import pytest

from dia_server.audio.tempo import Tempo, change_tempo
from tests.audio.signals import RATE, Samples, pitch, silent_samples, tone
from tests.memory import linux_only, resident

SPEEDS = [0.25, 0.3, 0.5, 0.8, 1.0, 1.25, 2.0, 3.0, 4.0]


def in_chunks(samples: Samples, speed: float, sizes: list[int]) -> Samples:
    tempo, start = Tempo(speed, RATE), 0
    made: list[Samples] = []
    while start < len(samples):
        size = sizes[len(made) % len(sizes)]
        made.append(tempo.push(samples[start : start + size]))
        start += size
    return np.concatenate([*made, tempo.finish()])


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("hertz", [110.0, 440.0, 1000.0])
def test_the_pitch_is_unchanged(speed: float, hertz: float) -> None:
    assert pitch(change_tempo(tone(3, hertz), RATE, speed)) == pytest.approx(hertz, rel=0.01)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("length", [0, 1, 2, 1023, 1024, 1025, 100_001])
def test_the_length_is_exact(speed: float, length: int) -> None:
    assert len(change_tempo(np.zeros(length, np.float32), RATE, speed)) == round(length / speed)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("sizes", [[512], [997, 0, 3], [20_000]], ids=str)
def test_a_stream_equals_the_whole_whatever_its_chunks(speed: float, sizes: list[int]) -> None:
    samples = tone(1.5)

    assert np.array_equal(in_chunks(samples, speed, sizes), change_tempo(samples, RATE, speed))


def test_samples_may_be_pushed_one_by_one() -> None:
    samples = tone(0.2)

    assert np.array_equal(in_chunks(samples, 1.5, [1]), change_tempo(samples, RATE, 1.5))


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_stream_lags_by_less_than_300_ms(speed: float) -> None:
    samples, tempo, given = tone(5), Tempo(speed, RATE), 0
    for start in range(0, len(samples), 441):
        given += len(tempo.push(samples[start : start + 441]))
        assert 0 <= start + 441 - given * speed < 0.3 * RATE


@pytest.mark.parametrize("speed", [0.25, 4.0])
def test_the_end_is_kept(speed: float) -> None:
    samples = np.concatenate([silent_samples(1), tone(0.2)])

    slowed = change_tempo(samples, RATE, speed)

    last = slowed[-round(0.15 / speed * RATE) :]
    assert np.sqrt(np.mean(last**2)) > 0.1


def test_speed_1_changes_no_sample() -> None:
    samples = tone(0.1)

    assert np.array_equal(change_tempo(samples, RATE, 1.0), samples)


@linux_only
@pytest.mark.parametrize("speed", [0.25, 1.5, 4.0])
def test_a_long_stream_is_not_kept(speed: float) -> None:
    """90 s of float samples take 16 MB."""
    tempo, second = Tempo(speed, RATE), tone(1)
    for _ in range(3):
        tempo.push(second)
    before = resident()
    for _ in range(90):
        tempo.push(second)

    assert resident() - before < 4 * 2**20
