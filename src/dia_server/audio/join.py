"""One recording from pieces that were made apart: no click where they meet, and set pauses."""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SILENCE = 0.003
"""Amplitude (-50 dBFS) that a sound exceeds."""
MARGIN_S = 0.03
"""Kept of the silence around a piece: breath, and the end of a soft consonant."""
FADE_IN_S, FADE_OUT_S = 0.003, 0.010


class Join:
    """Pieces in, chunk by chunk as they are made, one recording out, at a fraction of a millisecond each.

    `begin` starts each piece, `push` takes its mono samples, `finish` ends the last. A piece is heard
    from MARGIN_S before its first sound to MARGIN_S after its last, faded at both ends: the silence
    between two pieces is the set pause and those margins, however much silence was made around them.
    Since the last sound is known only at the end, silence within a piece waits for the sound after it;
    held are FADE_OUT_S and the current silence, never more than one piece. Calls must not overlap.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._margin = round(MARGIN_S * sample_rate)
        self._fade_in = np.linspace(0.0, 1.0, round(FADE_IN_S * sample_rate), dtype=np.float32)
        self._fade_out = np.linspace(1.0, 0.0, round(FADE_OUT_S * sample_rate), dtype=np.float32)
        self._start_over()

    def _start_over(self) -> None:
        self._held = np.zeros(0, np.float32)
        self._sounding = False
        self._faded_in = 0  # samples of the piece that are past the fade
        self._sound_end = 0  # in `_held`, where its last sound ends

    def begin(self, pause_s: float) -> Samples:
        """Return the end of the piece before, if there was one, and the pause after it."""
        return np.concatenate([self.finish(), np.zeros(round(pause_s * self._rate), np.float32)])

    def push(self, samples: Samples) -> Samples:
        """Return what of the current piece is known not to be its end."""
        if not self._sounding:
            samples = np.concatenate([self._held, samples])
        sounds = np.flatnonzero(np.abs(samples) > SILENCE)
        if not self._sounding:
            if not len(sounds):
                self._held = samples[max(0, len(samples) - self._margin) :].copy()
                return np.zeros(0, np.float32)
            start = max(0, int(sounds[0]) - self._margin)
            samples, sounds = samples[start:], sounds - start
            self._held, self._sounding = np.zeros(0, np.float32), True
        before = len(self._held)
        self._held = np.concatenate([self._held, self._fade(samples)])
        if not len(sounds):
            return np.zeros(0, np.float32)
        self._sound_end = before + int(sounds[-1]) + 1
        sure = max(0, self._sound_end - len(self._fade_out))
        out, self._held = self._held[:sure], self._held[sure:].copy()
        self._sound_end -= sure
        return out

    def finish(self) -> Samples:
        """Return the end of the current piece; one without any sound has been left out."""
        end = self._held[: self._sound_end + self._margin] if self._sounding else self._held[:0]
        fade = self._fade_out[max(0, len(self._fade_out) - len(end)) :]
        end = np.concatenate([end[: len(end) - len(fade)], end[len(end) - len(fade) :] * fade])
        self._start_over()
        return end

    def _fade(self, samples: Samples) -> Samples:
        ramp = self._fade_in[self._faded_in :][: len(samples)]
        self._faded_in += len(ramp)
        return np.concatenate([samples[: len(ramp)] * ramp, samples[len(ramp) :]])
