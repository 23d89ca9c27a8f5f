"""Test signals, and the measurement of their pitch."""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

RATE = 44_100


def tone(seconds: float, hertz: float = 440.0, amplitude: float = 0.3) -> Samples:
    times = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def silent_samples(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


def pitch(samples: Samples, rate: int = RATE) -> float:
    """Return the strongest frequency in Hz, interpolated between the bins of the spectrum."""
    spectrum = np.log(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) + 1e-12)
    peak = int(spectrum.argmax())
    left, middle, right = spectrum[peak - 1 : peak + 2]
    return float((peak + 0.5 * (left - right) / (left - 2 * middle + right)) * rate / len(samples))
