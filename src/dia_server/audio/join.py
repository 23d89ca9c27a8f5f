"""Joins separately generated segments into one recording, without clicks and with set pauses."""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SILENCE = 0.003
"""Maximum amplitude (-50 dBFS) of silence."""
MARGIN_S = 0.03
"""Seconds of silence kept at each end of a segment, for breath and soft consonants."""
FADE_IN_S, FADE_OUT_S = 0.003, 0.010
"""Seconds of the fade-in at a segment's start and of the fade-out at its end."""


class Join:
    """Joins segments, pushed in chunks, into one recording. A call is short enough for the event loop.

    `begin` starts a segment, `push` adds its mono samples, `finish` ends the last segment. Each segment is
    trimmed to MARGIN_S around its sound and faded at both ends, so the silence between two segments is the
    pause passed to `begin` plus at most two margins. `push` holds back all from FADE_OUT_S before the last
    sound, because the segment may end there. In that case the silence is trimmed to MARGIN_S, and the last
    FADE_OUT_S of the remainder is faded. Calls must not overlap.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._margin = round(MARGIN_S * sample_rate)
        self._fade_in = np.linspace(0.0, 1.0, round(FADE_IN_S * sample_rate), dtype=np.float32)
        self._fade_out = np.linspace(1.0, 0.0, round(FADE_OUT_S * sample_rate), dtype=np.float32)
        self._returned = 0  # samples of the recording that were returned
        self._start_over()

    def _start_over(self) -> None:
        self._held = np.zeros(0, np.float32)
        self._sounding = False
        self._faded_in = 0  # samples of the segment to which the fade-in has been applied
        self._sound_end = 0  # index in `_held` after the last sound
        self._pushed = 0  # samples of the segment that were pushed
        self._sound_start = 0  # index in the recording of the segment's first sound
        self._origin = 0

    @property
    def origin(self) -> int:
        """Index in the recording of the segment's first sample, which may be trimmed."""
        return self._origin

    @property
    def sound(self) -> tuple[int, int] | None:
        """Indexes in the recording of the segment's first sound so far, and after its last one.

        None if it has no sound. Like `origin`, valid until the next `begin` or `finish`.
        """
        return (self._sound_start, self._returned + self._sound_end) if self._sounding else None

    def begin(self, pause_s: float) -> Samples:
        """Start a segment; return the rest of the previous one, then `pause_s` seconds of silence."""
        pause = np.zeros(round(pause_s * self._rate), np.float32)
        rest = self.finish()
        self._returned += len(pause)
        return np.concatenate([rest, pause])

    def push(self, samples: Samples) -> Samples:
        """Add `samples`; return the held and new samples up to FADE_OUT_S before the last sound."""
        self._pushed += len(samples)
        if not self._sounding:
            samples = np.concatenate([self._held, samples])
        sounds = np.flatnonzero(np.abs(samples) > SILENCE)
        if not self._sounding:
            if not len(sounds):
                self._held = samples[max(0, len(samples) - self._margin) :].copy()
                return np.zeros(0, np.float32)
            start = max(0, int(sounds[0]) - self._margin)
            self._sound_start = self._returned + int(sounds[0]) - start
            self._origin = self._returned - (self._pushed - len(samples) + start)
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
        self._returned += len(out)
        return out

    def finish(self) -> Samples:
        """End the segment; return the rest of its samples, trimmed and faded (none if it has no sound)."""
        end = self._held[: self._sound_end + self._margin] if self._sounding else self._held[:0]
        fade = self._fade_out[max(0, len(self._fade_out) - len(end)) :]
        end = np.concatenate([end[: len(end) - len(fade)], end[len(end) - len(fade) :] * fade])
        self._start_over()
        self._returned += len(end)
        return end

    def _fade(self, samples: Samples) -> Samples:
        ramp = self._fade_in[self._faded_in :][: len(samples)]
        self._faded_in += len(ramp)
        return np.concatenate([samples[: len(ramp)] * ramp, samples[len(ramp) :]])
