import numpy as np
import pytest

from dia_server.audio.tempo import change_tempo
from tests.audio.pitch import pitch

TONE = (0.5 * np.sin(2 * np.pi * 220 * np.arange(3 * 44_100) / 44_100)).astype(np.float32)


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 3.0, 4.0])
def test_the_length_changes_and_the_pitch_does_not(speed: float) -> None:
    changed = change_tempo(TONE, 44_100, speed)

    assert len(changed) == round(len(TONE) / speed)
    assert pitch(changed) == pytest.approx(220, rel=0.01)


@pytest.mark.parametrize("length", [0, 1, 300])
@pytest.mark.parametrize("speed", [0.25, 4.0])
def test_very_short_audio_survives(length: int, speed: float) -> None:
    assert len(change_tempo(TONE[:length], 44_100, speed)) == round(length / speed)
